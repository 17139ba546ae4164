//! The proof proves itself: each rule of [`Canary`] is taken away, and some ring must find that. A rule whose absence nobody sees is
//! one that is not proved; one whose absence changes no state is named with the reason ([`Ring::Nowhere`]).
//!
//! `SKYLOG_CANARIES=all` takes longer searches too, which an ordinary run leaves to `scripts/canaries`; a name or several with commas
//! between them choose. `SKYLOG_CANARIES_TABLE` names a file that the table is written to.

use crate::crash::quietly;
use crate::flips::{End, Flips, Survived, Whole};
use crate::{Scope, failing, fence, mended, real, run_one, scenes, writers};
use skylog::base::canary::{Canary, Kind, times_missed, with_removed};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Where the absence of a rule is looked for.
#[derive(Clone, Copy)]
enum Ring {
    /// Random histories from this seed on, crashed after every call.
    Crashes(u64),
    /// Histories of several writers from this seed on.
    Writers(u64),
    /// The exhaustive model of the fence.
    Fence,
    /// Calls that fail, in histories from this trial on.
    Calls(failing::Search),
    /// A story that histories do not come to, crashed after every call.
    Story(fn() -> scenes::Told),
    /// Flips in files and objects of such a filesystem whose names start so, in so many bytes at their ends.
    Flips(End, &'static [&'static str], usize),
    /// In no ring: why no state differs.
    Nowhere(&'static str),
}

/// Histories within which it must be found,
const HISTORIES_MAX: u64 = 400;
/// of several writers,
const WRITERS_MAX: u64 = 3000;
/// and flips; when one was found that costs more than it must, or is told to nobody, so many are enough to look for wrong data.
const FLIPS_MAX: u64 = 3000;
const FLIPS_MORE: u64 = 400;
/// All of a file.
const ALL: usize = usize::MAX;

/// What a search came to.
enum Found {
    Caught { ring: &'static str, after: String, what: String },
    Nowhere(&'static str),
    Missed(String),
}

fn crashes(from: u64) -> Found {
    let scope = Scope { seed: from, histories: 1, crash: None, plans: 6, sample: 4 };
    let mut states = 0;
    for seed in from..from + HISTORIES_MAX {
        let mut found = run_one(&scope, seed);
        states += found.figures.judged;
        if let Some(what) = found.failures.pop() {
            let after = format!("{states} states of histories {from} to {seed}");
            return Found::Caught { ring: "crashes", after, what };
        }
    }
    Found::Missed(format!("{states} states of {HISTORIES_MAX} histories"))
}

fn several(from: u64, rule: Canary) -> Found {
    for seed in from..from + WRITERS_MAX {
        if let Err(what) = writers::run_one(seed, Some(rule)) {
            return Found::Caught { ring: "several writers", after: format!("{} histories", seed - from + 1), what };
        }
    }
    Found::Missed(format!("{WRITERS_MAX} histories of several writers"))
}

fn exhaustive(rule: Canary) -> Found {
    match fence::without(rule) {
        Err(what) => Found::Caught { ring: "model of the fence", after: "an exhaustive search".to_owned(), what },
        Ok(states) => Found::Missed(format!("{states} states of the model")),
    }
}

/// Wrong data; else damage that costs more than with the rule in place, or of which nobody is told.
fn flips(rule: Canary, end: End, within: &[&str], tail: usize) -> Found {
    let whole = Whole::new(end as u64 + 1, end);
    let flips = Flips::new(&whole, within, tail, 1);
    let (mut worse, mut stop) = (None, FLIPS_MAX);
    let mut count = 0;
    while count < stop {
        count += 1;
        let (flip, judged) = with_removed(rule, || flips.next());
        match judged {
            // With the rule in place this is a failure of its own.
            Err(what) if whole.flip(&flip).is_err() => panic!("with all rules in place: {what}"),
            Err(what) => return Found::Caught { ring: "flips", after: format!("{count} flips"), what },
            Ok(without) if worse.is_none() => {
                let words = match (whole.flip(&flip).expect("looked at above"), without) {
                    (Survived::Told | Survived::Unseen, Survived::Cost(_)) => {
                        "costs a mount or a file, which it need not"
                    }
                    (Survived::Told | Survived::Cost(_), Survived::Unseen) => "is told to nobody",
                    _ => continue,
                };
                worse = Some((count, format!("{flip:?}: the damage {words}")));
                stop = stop.min(count + FLIPS_MORE);
            }
            Ok(_) => {}
        }
    }
    match worse {
        Some((count, what)) => Found::Caught { ring: "flips", after: format!("{count} flips"), what },
        None => Found::Missed(format!("{count} flips")),
    }
}

fn story(story: fn() -> scenes::Told) -> Found {
    match story() {
        Ok(states) => Found::Missed(format!("{states} states of its story")),
        Err((states, what)) => Found::Caught { ring: "a story", after: format!("{states} states"), what },
    }
}

fn calls(search: failing::Search) -> Found {
    match failing::search(search) {
        Ok(trials) => Found::Missed(format!("{trials} trials")),
        Err((trials, what)) => Found::Caught { ring: "failing calls", after: format!("{trials} trials"), what },
    }
}

fn look(rule: Canary, ring: Ring) -> Found {
    let before = times_missed();
    let found = match ring {
        Ring::Crashes(from) => with_removed(rule, || crashes(from)),
        Ring::Writers(from) => return several(from, rule),
        Ring::Fence => return exhaustive(rule),
        Ring::Calls(search) => with_removed(rule, || calls(search)),
        Ring::Story(tell) => with_removed(rule, || story(tell)),
        Ring::Flips(end, within, tail) => flips(rule, end, within, tail),
        Ring::Nowhere(why) => return Found::Nowhere(why),
    };
    match found {
        Found::Missed(after) if times_missed() == before => Found::Missed(format!("{after}, none of which came to it")),
        // Then something else is wrong, and proves nothing about this rule.
        Found::Caught { ring, after, what } if times_missed() == before => {
            Found::Missed(format!("{after}, which never came to it; {ring} went red all the same: {}", sentence(&what)))
        }
        found => found,
    }
}

struct Row {
    rule: Canary,
    found: Found,
    millis: u128,
}

impl Row {
    fn line(&self) -> String {
        let kind = match self.rule.kind() {
            Kind::Sync => "sync",
            Kind::Order => "order",
            Kind::Checksum => "checksum",
        };
        let (ring, after, what) = match &self.found {
            Found::Caught { ring, after, what } => (*ring, after.as_str(), sentence(what)),
            Found::Nowhere(why) => ("none", "", format!("No state differs: {why}")),
            Found::Missed(after) => ("**missed**", after.as_str(), String::new()),
        };
        let (rule, says, protects) = (self.rule, self.rule.says().trim(), self.rule.protects());
        format!("| `{rule:?}` ({kind}) | {says} | {protects} | {ring} | {after} | {what} |")
    }
}

/// The first words of what went wrong, without where that was written down and how to see it again.
fn sentence(what: &str) -> String {
    let words = what.split_whitespace().filter(|word| {
        let place = word.starts_with("src/") || word.starts_with("tests/");
        !(word.starts_with("SKYLOG_") || place && word.ends_with(':'))
    });
    let all = words.map(without_scratch).collect::<Vec<_>>().join(" ").replace("panicked at ", "").replace('|', "\\|");
    let mut short: String = all.trim_start_matches(": ").chars().take(220).collect();
    if short.len() < all.len() {
        short.push('…');
    }
    short
}

/// A path without the scratch folder of a run, which is called otherwise the next time.
fn without_scratch(word: &str) -> String {
    let Some((before, rest)) = word.split_once(crate::real::SCRATCH) else { return word.to_owned() };
    let (_, inside) = rest.split_once('/').unwrap_or((rest, rest));
    format!(
        "{}{inside}",
        before.trim_end_matches(|c: char| c == '/' || c == '.' || c == '_' || c == '-' || c.is_alphanumeric())
    )
}

/// Rules whose absence takes long to find: an ordinary run leaves them to the soak.
const LONG: &[Canary] = &[];

fn chosen() -> Vec<Canary> {
    match std::env::var("SKYLOG_CANARIES").ok().as_deref() {
        None => Canary::ALL.iter().copied().filter(|rule| !LONG.contains(rule)).collect(),
        Some("all") => Canary::ALL.to_vec(),
        Some(names) => {
            let rule_of = |name| {
                let rule = Canary::ALL.iter().find(|rule| format!("{rule:?}") == name);
                *rule.unwrap_or_else(|| panic!("no rule is called {name:?}"))
            };
            names.split(',').map(rule_of).collect()
        }
    }
}

#[test]
fn without_any_one_rule_some_ring_goes_red() {
    let rules = chosen();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&rule) = rules.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begin = Instant::now();
                    // A search that panics has found nothing.
                    let found = quietly(|| look(rule, ring_of(rule))).unwrap_or_else(Found::Missed);
                    let row = Row { rule, found, millis: begin.elapsed().as_millis() };
                    println!("{:>7} ms {}", row.millis, row.line());
                    rows.lock().expect("no panic while it is held").insert(rule, row);
                }
            });
        }
    });
    let rows = rows.into_inner().expect("no thread panicked");
    if let Ok(path) = std::env::var("SKYLOG_CANARIES_TABLE") {
        let head = "| rule | what it says | what it protects | caught by | after | what went wrong without it |\n|---|---|---|---|---|---|\n";
        let lines: Vec<String> = rows.values().map(Row::line).collect();
        std::fs::write(path, format!("{head}{}\n", lines.join("\n"))).expect("the table is written");
    }
    let missed: Vec<Canary> =
        rows.values().filter(|row| matches!(row.found, Found::Missed(_))).map(|r| r.rule).collect();
    let caught = rows.values().filter(|row| matches!(row.found, Found::Caught { .. })).count();
    println!("{} rules: {caught} caught, {} change no state", rows.len(), rows.len() - caught - missed.len());
    assert!(missed.is_empty(), "without these nothing went wrong: {missed:?}");
}

/// The ring of each rule: the one that finds it soonest.
fn ring_of(rule: Canary) -> Ring {
    use Canary as C;
    use failing::Search;
    match rule {
        C::TailSync => Ring::Crashes(13),
        C::PlannedBeforeShipped => Ring::Crashes(9),
        C::ResumeBeforeJobs => Ring::Crashes(6),
        C::CopyAfterBase => Ring::Crashes(3),
        C::SegmentSync
        | C::SealSync
        | C::SlotSync
        | C::SlotDirSync
        | C::Nonce
        | C::ManifestSync
        | C::ManifestDirSync
        | C::NodeSync
        | C::NodeDirSync
        | C::CheckpointSync
        | C::PlanSync
        | C::EditsSync
        | C::CheckpointDirSync
        | C::DurableBeforeCheckpoint
        | C::CopyVerified
        | C::SegmentsBeforeIndex
        | C::IndexBeforePublication
        | C::NodesBeforeBase
        | C::WindowBeforeReclaim
        | C::PendingBeforeDelete => Ring::Crashes(1),
        C::JournalDirSync | C::StateFoldersSync => Ring::Story(scenes::first_mount),
        C::WithdrawnSync | C::WithdrawnSlotsSync => Ring::Story(scenes::withdrawn),
        C::CacheEmptiedSync | C::CacheOwnerSync | C::CacheOwnerDirSync => Ring::Nowhere(
            "what a cache file gives back is verified (`CopyVerified`), so a crash leaves at worst files that are dropped when they are read",
        ),
        C::LeaseBeforeDelete => Ring::Story(scenes::followed),
        C::TailFileSync => Ring::Writers(3001),
        C::LogAfterDurable | C::AnswerAfterStore | C::BaseCarriesTail => Ring::Writers(1),
        C::NoSyncAfterLatch => Ring::Story(scenes::fenced),
        C::NumbersOnce
        | C::OthersFence
        | C::AnswerReadBack
        | C::LookBehindGap
        | C::WalkAsks
        | C::FirstNumberStays
        | C::LastNumberStays
        | C::ClosingStays => Ring::Fence,
        C::LatchOnFailure | C::ForgetCached => Ring::Calls(Search::Journal),
        C::ManifestLatch => Ring::Calls(Search::Manifest),
        C::JournalFooterCrc => Ring::Story(scenes::journal_footer),
        C::JournalDirectoryCrc => Ring::Story(scenes::journal_directory),
        C::TailRule | C::GroupCrc => Ring::Flips(End::Killed, &["journal/"], ALL),
        C::RecordedEnd | C::JournalObjectCrc => Ring::Flips(End::Closed, &["journal/"], ALL),
        C::JournalReachesCheckpoint => Ring::Flips(End::Committed, &["journal/"], ALL),
        C::ManifestCrc => Ring::Flips(End::Closed, &["MANIFEST"], ALL),
        C::CheckpointCrc | C::PlanCrc | C::PlanBlockCrc => Ring::Flips(End::Closed, &["ckpt/"], ALL),
        C::BatchCrc => Ring::Flips(End::Killed, &["ckpt/"], ALL),
        C::PayloadCrc => Ring::Flips(End::TakenOver, &["ckpt/"], ALL),
        C::StoreFileCrc => Ring::Story(scenes::store_file),
        C::SuperblockCrc => Ring::Flips(End::Closed, &["skylog"], ALL),
        C::PublicationCrc => Ring::Flips(End::Closed, &["gen/"], ALL),
        C::WindowCrc | C::WindowBlockCrc => Ring::Flips(End::Closed, &["win/"], ALL),
        C::NodeCrc | C::ChunkCrc | C::FrameCrc => Ring::Flips(End::Closed, &["seg/"], ALL),
        C::SegmentCrc => Ring::Flips(End::Closed, &["seg/"], ALL),
        C::SegmentFooterCrc => Ring::Flips(End::Closed, &["seg/"], 64),
        C::SegmentDirectoryCrc => Ring::Nowhere(
            "bodies follow one another without gaps, and each entry is compared with the frame of its body, which has a checksum of its own",
        ),
        C::LocalSync => Ring::Story(real::file_sync),
        C::LocalDirSync => Ring::Story(real::dir_sync),
        C::FolderPutSync => Ring::Story(real::folder_put),
        C::FolderLinkSync => Ring::Story(real::folder_link),
        C::FolderDeleteSync => Ring::Story(real::folder_delete),
        C::StoreMadeSync => Ring::Story(real::store_made),
        C::FolderMadeSync | C::FolderExistsSync => Ring::Nowhere(
            "the log of ext4 and of xfs makes names durable in their order, so the sync of an object, or of the attempt at one, takes what came before along; \
             POSIX does not promise that, and other filesystems need not do it",
        ),
        C::RepairNoteSync
        | C::RepairNoteDirSync
        | C::CopiesBeforeBase
        | C::RepairSegmentsBeforeBase
        | C::RepairIndexesBeforeBase
        | C::RepairNodesBeforeBase
        | C::BaseBeforeAside
        | C::AsideMadeSync
        | C::AsideSync
        | C::NoteGoesLast
        | C::NoteGoneSync => Ring::Story(mended::objects),
        C::MountHeedsRepair | C::RepairDoneAgain | C::CopyBeforeSuperblock => Ring::Story(mended::superblock),
        C::AsideFromSync => Ring::Nowhere(
            "ext4 and xfs move a name from one folder to another at once, and the sync of the folder that it comes to makes that durable; \
             POSIX does not promise that, and other filesystems need not do it",
        ),
        C::JournalMovesLate => Ring::Story(mended::manifest_gone),
        C::ManifestMovesLast => Ring::Story(mended::manifest_damaged),
        C::FenceBeforeRepair => Ring::Story(mended::beside_a_writer),
        C::RepairFileCrc => Ring::Story(scenes::repair_file),
        C::ObjectTableCrc => Ring::Nowhere("a table is a body of its segment, whose frame has a checksum of all of it"),
        C::LeaseCrc => Ring::Story(scenes::followed_by_damage),
    }
}
