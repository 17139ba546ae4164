//! `skylog status DIR|STORE`: how a volume is doing.

use super::control::{Ask, Conversation, Say};
use super::failure::{Failure, Outcome};
use super::remote_words::RemoteWords;
use super::site::Site;
use super::store_arg::{SUPERBLOCK, StoreArg};
use super::{mount_point, output, registry, size};
use serde_json::{Value, json};
use skylog::base::clock::Time;
use skylog::volume::Volume;

/// Show how a mounted volume is doing, or that a store is not mounted here.
#[derive(clap::Args)]
pub struct Status {
    /// The mount point, or the store (a directory or a URL).
    what: String,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Prints the status.
    pub fn run(&self) -> Outcome {
        let status = self.fetch()?;
        match self.json {
            true => output::line(format_args!("{}", serde_json::to_string_pretty(&status).expect("plain data"))),
            false => print_lines("", &status),
        }
        Ok(())
    }

    fn fetch(&self) -> Result<Value, Failure> {
        let dir = mount_point::canonical(self.what.as_ref())?;
        let found = match registry::find_mount(&dir) {
            Some(found) => Some(found),
            None if mount_point::is_skylog(&dir) => registry::socket_of(&dir).map(Some)?,
            None => self.find_by_store()?,
        };
        let Some((socket, registration)) = found else { return self.unmounted() };
        let mut status = match Conversation::over(&socket, registration.clone(), &Ask::Status)?.next()? {
            Say::Status { status } => status,
            other => return Err(Failure::failed(format_args!("the daemon answered {other:?}"))),
        };
        if let Value::Object(fields) = &mut status {
            fields.insert("mount_point".into(), json!(registration.dir));
            fields.insert("store".into(), json!(registration.store));
            fields.insert("state_directory".into(), json!(registration.state));
        }
        Ok(status)
    }

    fn find_by_store(&self) -> Result<Option<(std::path::PathBuf, registry::Registration)>, Failure> {
        Ok(registry::find_store(&self.what.parse::<StoreArg>().map_err(Failure::usage)?.url()))
    }

    /// A store that nobody on this machine has mounted.
    fn unmounted(&self) -> Result<Value, Failure> {
        let store: StoreArg = self.what.parse().map_err(Failure::usage)?;
        let store = store.lasting(&RemoteWords::default())?;
        if let Some(folder) = store.folder().filter(|folder| folder.is_dir() && !folder.join(SUPERBLOCK).exists()) {
            return Err(Failure::failed(format_args!(
                "{} is neither a skylog mount nor a skylog store",
                folder.display()
            )));
        }
        let superblock = Site::online(&store, None)?.superblock;
        Ok(json!({ "state": "not mounted on this machine", "store": store.url(), "uuid": superblock.uuid.to_string() }))
    }
}

/// What a daemon tells of its volume. A follower tells what it follows, and nothing of what it does not have.
pub fn of(volume: &Volume) -> Value {
    let mut status = serde_json::to_value(volume.status()).expect("a status is plain data");
    let Some(follows) = volume.follow_status() else {
        status["role"] = json!("writer");
        return status;
    };
    for name in OF_WRITERS {
        status.as_object_mut().and_then(|fields| fields.remove(*name));
    }
    for name in COUNTERS_OF_WRITERS {
        status["counters"].as_object_mut().and_then(|counters| counters.remove(*name));
    }
    let figures = follows.figures;
    status["role"] = json!("follower");
    status["generation"] = json!(figures.position.generation);
    status["number"] = json!(figures.position.number);
    status["checkpoint"] = json!(figures.checkpoint);
    status["published"] = json!(Time::from_nanos(figures.wall).to_string());
    status["lag_s"] = json!(follows.lag.as_secs());
    status["publications_read"] = json!(figures.publications);
    status["generations_reopened"] = json!(figures.reopened);
    status["lease"] = json!(follows.why_lost.map_or_else(|| "held".to_owned(), |why| format!("lost: {why}")));
    let left = i64::try_from(follows.lease_left.as_nanos()).unwrap_or(0);
    status["lease_until"] = json!(Time::from_nanos(volume.now().as_nanos().saturating_add(left)).to_string());
    status["leases_lost"] = json!(figures.leases_lost);
    status["states_in_use"] = json!(follows.states_in_use);
    status["oldest_checkpoint_in_use"] = json!(follows.oldest_checkpoint);
    status
}

/// What only a mount that writes has.
const OF_WRITERS: &[&str] = &[
    "policy",
    "durable",
    "shipped",
    "journal_used_bytes",
    "journal_capacity_bytes",
    "unshipped_bytes",
    "pressure",
    "pressure_reason",
    "when_full",
    "checkpoint_age_s",
    "windows_waiting",
];
const COUNTERS_OF_WRITERS: &[&str] = &[
    "replayed_batches",
    "replayed_bytes",
    "replay_ms",
    "syncs",
    "synced_waiters",
    "sync_max_us",
    "slow_syncs",
    "disk_busy_ms",
    "checkpoint_failures",
    "segments_recycled",
    "checkpoints",
    "windows_shipped",
    "objects_deleted",
    "slowed",
    "refused",
];

/// `name: value` lines; what is nested follows its name, indented. Sizes come with a unit too.
fn print_lines(indent: &str, value: &Value) {
    let Value::Object(fields) = value else { return };
    let is_nested = |value: &Value| value.is_object() || value.as_array().is_some_and(|list| !list.is_empty());
    let (nested, flat): (Vec<_>, Vec<_>) = fields.iter().partition(|(_, value)| is_nested(value));
    for (name, value) in flat {
        output::line(format_args!("{indent}{}", line(name, value)));
    }
    for (name, value) in nested {
        for value in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
            output::line(format_args!("{indent}{}:", name.replace('_', " ")));
            print_lines(&format!("{indent}  "), value);
        }
    }
}

fn line(name: &str, value: &Value) -> String {
    let words = name.replace('_', " ");
    match (value, value.as_u64()) {
        (Value::String(text), _) => format!("{words}: {text}"),
        (Value::Null | Value::Array(_), _) => format!("{words}: none"),
        (_, Some(bytes)) if name.ends_with("_bytes") && bytes >= 1024 => {
            format!("{words}: {bytes} ({})", size::show(bytes))
        }
        _ => format!("{words}: {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_and_how_much() {
        assert_eq!(line("used_bytes", &json!(3 << 20)), "used bytes: 3145728 (3.0 MiB)");
        assert_eq!(line("used_bytes", &json!(512)), "used bytes: 512");
        assert_eq!(line("used_inodes", &json!(4096)), "used inodes: 4096");
        assert_eq!(line("limit_bytes", &Value::Null), "limit bytes: none");
        assert_eq!(line("on_limit", &json!("enospc")), "on limit: enospc");
    }
}
