//! `skylog status DIR|STORE`: how a volume is doing.

use super::control::{Ask, Conversation, Say};
use super::failure::{Failure, Outcome};
use super::remote_words::RemoteWords;
use super::site::Site;
use super::store_arg::{SUPERBLOCK, StoreArg};
use super::{mount_point, output, registry, size};
use serde_json::{Value, json};

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
