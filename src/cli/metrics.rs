//! `skylog metrics DIR`: everything that a mount counts, as text for Prometheus and its relatives.

use super::control::{Ask, Conversation, Say};
use super::failure::{Failure, Outcome};
use super::{mount_point, output};
use skylog::base::metrics::Text;
use skylog::cache::CacheStats;
use skylog::fuse::Requests;
use skylog::locate::ReaderStats;
use skylog::store::{FailureKind, RequestKind, StoreFigures};
use skylog::volume::{Counters, FollowStatus, Status, Volume};
use std::path::PathBuf;

/// Show what a mounted volume counts, as text for Prometheus; `skylog mount --metrics` serves it.
#[derive(clap::Args)]
pub struct Metrics {
    /// The mount point.
    dir: PathBuf,
}

impl Metrics {
    /// Prints the text.
    pub fn run(&self) -> Outcome {
        let dir = mount_point::canonical(&self.dir)?;
        match Conversation::with(&dir, &Ask::Metrics)?.next()? {
            Say::Metrics { text } => output::line(text.trim_end()),
            other => return Err(Failure::failed(format_args!("the daemon answered {other:?}"))),
        }
        Ok(())
    }
}

/// Everything that is counted.
pub fn text(volume: &Volume, requests: &Requests) -> String {
    let status = volume.status();
    let mut text = Text::default();
    condition(&mut text, &status);
    kernel(&mut text, requests);
    match volume.follow_status() {
        Some(follows) => follower(&mut text, &follows),
        None => journal(&mut text, &status, volume),
    }
    work(&mut text, &status.counters);
    if let Some(cache) = &status.cache {
        copies(&mut text, cache);
    }
    if let Some(reading) = &status.reading {
        reader(&mut text, reading);
    }
    if let Some(figures) = volume.store_figures() {
        store(&mut text, &figures);
    }
    text.finish()
}

/// What a mount has that follows one that writes, in the place of a journal.
fn follower(text: &mut Text, follows: &FollowStatus) {
    let figures = &follows.figures;
    let lag = follows.lag.as_secs();
    text.gauge("skylog_follower_lag_seconds", "Since the store last said that there is nothing newer.", lag);
    let published = figures.wall / 1_000_000_000;
    text.gauge("skylog_follower_published_timestamp_seconds", "When what is shown was published.", published);
    text.gauge("skylog_follower_states", "Published states that something open reads.", follows.states_in_use);
    for (name, help, value) in [
        ("skylog_follower_publications_total", "Publications read since the mount.", figures.publications),
        ("skylog_follower_leases_lost_total", "Leases lost, and what was open with them.", figures.leases_lost),
    ] {
        text.counter(name, help, value);
    }
}

fn condition(text: &mut Text, status: &Status) {
    let states = ["active", "offline", "read-only", "fenced", "following", "stale"];
    text.states("skylog_state", "The state the mount is in.", states, status.state);
    let steps = ["none", "shipping", "slowing", "full"];
    text.states("skylog_pressure", "What is done about a journal that fills up.", steps, status.pressure);
    let away = u8::from(status.store_state != "ok");
    text.gauge("skylog_store_away", "1 while the store does not answer.", away);
    let error = u8::from(status.last_error.is_some());
    text.gauge("skylog_error", "1 while there is an error that is not over.", error);
    let waiting = status.waiting_for_store;
    text.gauge("skylog_waiting_for_store", "Operations that wait for a store that does not answer.", waiting);
    text.gauge("skylog_waiting_fsyncs", "Fsyncs that wait for the store.", status.waiting_fsyncs);
    let round_trip = status.log_round_trip_us as f64 / 1e6;
    text.gauge("skylog_log_round_trip_seconds", "How long the newest log increment was on its way.", round_trip);
    let age = status.checkpoint_age_s;
    text.gauge("skylog_checkpoint_age_seconds", "Since the newest checkpoint was made.", age);
    text.gauge("skylog_windows_waiting", "Windows that wait to be shipped.", status.windows_waiting);
    text.gauge("skylog_overlay_bytes", "Memory of changes since the checkpoint.", status.overlay_bytes);
    let known = [
        ("skylog_used_bytes", "What the files take.", status.used_bytes),
        ("skylog_used_inodes", "Inodes that there are.", status.used_inodes),
        ("skylog_limit_bytes", "What the files may take.", status.limit_bytes),
        ("skylog_limit_inodes", "Inodes that there may be.", status.limit_inodes),
    ];
    for (name, help, value) in known {
        if let Some(value) = value {
            text.gauge(name, help, value);
        }
    }
}

fn kernel(text: &mut Text, requests: &Requests) {
    let (read, written) = requests.bytes();
    text.counters("skylog_fuse_requests_total", "Requests of the kernel.", "kind", requests.begun());
    text.counter("skylog_fuse_read_bytes_total", "File data in answers to reads.", read);
    text.counter("skylog_fuse_written_bytes_total", "File data in writes.", written);
    let help = "From a request of the kernel to its answer.";
    text.histograms("skylog_fuse_request_seconds", help, "kind", requests.latencies());
}

fn journal(text: &mut Text, status: &Status, volume: &Volume) {
    let used = status.journal_used_bytes;
    text.gauge("skylog_journal_used_bytes", "Journal segments in use.", used);
    text.gauge("skylog_journal_capacity_bytes", "What the journal may use.", status.journal_capacity_bytes);
    let unshipped = status.unshipped_bytes;
    text.gauge("skylog_unshipped_bytes", "Journal that the store does not have yet, at most.", unshipped);
    text.histograms("skylog_journal_sync_seconds", "Syncs of the journal.", "", [("", volume.sync_latency())]);
}

fn work(text: &mut Text, counters: &Counters) {
    // All of them by name: one that is added to `status` has to be added here.
    let Counters {
        replayed_batches,
        replayed_bytes,
        replay_ms,
        syncs,
        synced_waiters,
        sync_max_us,
        slow_syncs,
        disk_busy_ms,
        checkpoint_failures,
        segments_recycled,
        checkpoints,
        windows_shipped,
        log_increments,
        log_bytes,
        stored_fsyncs,
        timed_out_fsyncs,
        objects_deleted,
        parked,
        panics,
        unreadable,
        timed_out,
        slowed,
        refused,
        node_hits,
        node_misses,
    } = *counters;
    let seconds = |n: u64, parts: f64| n as f64 / parts;
    text.gauge("skylog_replayed_batches", "Batches that the mount replayed.", replayed_batches);
    text.gauge("skylog_replayed_bytes", "Journal that the mount read for that.", replayed_bytes);
    text.gauge("skylog_replay_seconds", "How long that took.", seconds(replay_ms, 1e3));
    let longest = seconds(sync_max_us, 1e6);
    text.gauge("skylog_journal_sync_max_seconds", "The longest sync of the journal.", longest);
    let busy = seconds(disk_busy_ms, 1e3);
    text.gauge("skylog_journal_busy_seconds", "How long the journal has been waiting for its disk.", busy);
    let failures = checkpoint_failures;
    text.gauge("skylog_checkpoint_failures", "Checkpoints that failed since the last that was made.", failures);
    for (name, help, value) in [
        ("skylog_journal_syncs_total", "Syncs of the journal that succeeded.", syncs),
        ("skylog_journal_synced_waiters_total", "Waiters that they answered.", synced_waiters),
        ("skylog_journal_slow_syncs_total", "Those that took two seconds or longer.", slow_syncs),
        ("skylog_journal_segments_recycled_total", "Journal segments used again.", segments_recycled),
        ("skylog_checkpoints_total", "Checkpoints made.", checkpoints),
        ("skylog_windows_shipped_total", "Windows shipped.", windows_shipped),
        ("skylog_log_increments_total", "Log increments published, for fsyncs.", log_increments),
        ("skylog_log_bytes_total", "Their bytes.", log_bytes),
        ("skylog_stored_fsyncs_total", "Fsyncs that waited for the store and were answered.", stored_fsyncs),
        ("skylog_timed_out_fsyncs_total", "Fsyncs answered with EIO for the store.", timed_out_fsyncs),
        ("skylog_objects_deleted_total", "Store objects deleted.", objects_deleted),
        ("skylog_operations_parked_total", "Operations that were parked.", parked),
        ("skylog_operations_panicked_total", "Operations answered with EIO after a panic.", panics),
        ("skylog_operations_unreadable_total", "Operations answered with EIO for damage.", unreadable),
        ("skylog_operations_timed_out_total", "Operations answered with EIO for a store that was away.", timed_out),
        ("skylog_operations_slowed_total", "Operations held back to slow writers down.", slowed),
        ("skylog_operations_refused_total", "Operations that a full journal refused.", refused),
        ("skylog_node_hits_total", "Tree nodes found in memory.", node_hits),
        ("skylog_node_misses_total", "Tree nodes not found in memory.", node_misses),
    ] {
        text.counter(name, help, value);
    }
}

fn copies(text: &mut Text, cache: &CacheStats) {
    let CacheStats {
        used_bytes,
        node_file_bytes,
        limit_bytes,
        runs,
        pending_bytes,
        hits,
        misses,
        evicted,
        dropped,
        damaged,
        last_error,
    } = cache;
    let help = "Cache files, and node files that the store has, in whole blocks.";
    text.gauge("skylog_cache_used_bytes", help, used_bytes);
    text.gauge("skylog_cache_node_file_bytes", "Of them: node files that the store has.", node_file_bytes);
    text.gauge("skylog_cache_limit_bytes", "What they may take.", limit_bytes);
    text.gauge("skylog_cache_pending_bytes", "In memory, not in a file yet.", pending_bytes);
    text.gauge("skylog_cache_runs", "Runs of bytes in the cache.", runs);
    let failing = u8::from(last_error.is_some());
    text.gauge("skylog_cache_error", "1 while the disk of the cache fails.", failing);
    for (name, help, value) in [
        ("skylog_cache_hits_total", "Reads that found all they asked for.", hits),
        ("skylog_cache_misses_total", "Reads that did not.", misses),
        ("skylog_cache_evicted_runs_total", "Runs removed for room.", evicted),
        ("skylog_cache_dropped_runs_total", "Runs not kept.", dropped),
        ("skylog_cache_damaged_runs_total", "Runs that were not what was put.", damaged),
    ] {
        text.counter(name, help, *value);
    }
}

fn reader(text: &mut Text, reading: &ReaderStats) {
    let ReaderStats { fetches, ahead, fetched_bytes, joined, damaged, healed } = *reading;
    for (name, help, value) in [
        ("skylog_reader_fetches_total", "Fetches of parts of segments.", fetches),
        ("skylog_reader_fetches_ahead_total", "Those that nobody waited for when they began.", ahead),
        ("skylog_reader_fetched_bytes_total", "Bytes that came.", fetched_bytes),
        ("skylog_reader_joined_total", "Reads that waited for a fetch of another.", joined),
        ("skylog_reader_damaged_total", "Bodies that were not what they should be.", damaged),
        ("skylog_reader_healed_total", "Those that were whole when fetched again.", healed),
    ] {
        text.counter(name, help, value);
    }
}

fn store(text: &mut Text, figures: &StoreFigures) {
    let requests = RequestKind::ALL.map(|kind| (kind.word(), figures.of(kind).begun));
    text.counters("skylog_store_requests_total", "Requests to the store, each try.", "method", requests);
    text.counter("skylog_store_retries_total", "Those beyond the first for the same thing.", figures.retries);
    let failures = FailureKind::ALL.map(|kind| (kind.word(), figures.failed(kind)));
    text.counters("skylog_store_failures_total", "Requests that failed.", "reason", failures);
    text.counter("skylog_store_sent_bytes_total", "Bodies sent.", figures.bytes_up);
    text.counter("skylog_store_received_bytes_total", "Bodies received.", figures.bytes_down);
    let latencies = RequestKind::ALL.map(|kind| (kind.word(), figures.of(kind).latency.clone()));
    let help = "From a request to the end of its answer.";
    text.histograms("skylog_store_request_seconds", help, "method", latencies);
}
