//! The words after `-o`.

use super::failure::Failure;
use skylog::journal::SyncPolicy;

/// Where in the kernel's and our own behaviour a mount differs from the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `sync=always|everysec|none`.
    pub sync: Option<SyncPolicy>,
    /// `grace=SECONDS`.
    pub grace_seconds: Option<u64>,
    /// `ro`: the kernel refuses every change.
    pub read_only: bool,
    /// `nonempty`: the mount point may hold files; they are hidden while mounted.
    pub nonempty: bool,
    /// `relatime`: reading is noted in access times, as far as the daemon sees it; otherwise never.
    pub relatime: bool,
    /// Words the kernel understands by itself: `nodev`, `nosuid`, `noexec`, `noatime`, `dirsync`, `allow_other`.
    pub kernel: Vec<String>,
}

const KERNEL: [&str; 6] = ["nodev", "nosuid", "noexec", "noatime", "dirsync", "allow_other"];
/// What mount(8) and fstab add without meaning anything by it.
const DEFAULTS: [&str; 9] = ["dev", "suid", "exec", "atime", "defaults", "auto", "noauto", "_netdev", "nofail"];

impl MountOptions {
    /// Reads all `-o` lists of a command line; later words win.
    pub fn parse(lists: &[String]) -> Result<MountOptions, Failure> {
        let mut options = MountOptions::default();
        for word in lists.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()) {
            options.add(word)?;
        }
        Ok(options)
    }

    fn add(&mut self, word: &str) -> Result<(), Failure> {
        match word.split_once('=') {
            Some(("sync", policy)) => self.sync = Some(policy.parse().map_err(Failure::usage)?),
            Some(("grace", seconds)) => {
                let wrong = |_| Failure::usage(format_args!("grace={seconds}: give a number of seconds"));
                self.grace_seconds = Some(seconds.parse().map_err(wrong)?);
            }
            None if matches!(word, "ro" | "rw") => self.read_only = word == "ro",
            None if word == "nonempty" => self.nonempty = true,
            None if matches!(word, "relatime" | "norelatime" | "noatime") => {
                self.relatime = word == "relatime";
                self.kernel.retain(|earlier| earlier != "noatime");
                self.kernel.extend((word == "noatime").then(|| word.to_string()));
            }
            None if KERNEL.contains(&word) => {
                self.kernel.retain(|earlier| earlier != word);
                self.kernel.push(word.to_string());
            }
            None if DEFAULTS.contains(&word) => self.kernel.retain(|earlier| !takes_back(word, earlier)),
            _ => {
                return Err(Failure::usage(format_args!(
                    "unknown mount option {word:?}; known are sync=, grace=, ro, rw, nonempty, relatime, {}",
                    KERNEL.join(", ")
                )));
            }
        }
        Ok(())
    }
}

/// Whether a word that asks for the default undoes an earlier one.
fn takes_back(word: &str, earlier: &str) -> bool {
    earlier.strip_prefix("no") == Some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<MountOptions, String> {
        MountOptions::parse(&[list.to_string()]).map_err(|f| f.sentence().to_string())
    }

    #[test]
    fn words_are_read_and_the_last_wins() {
        let options = parse("rw,sync=none,noexec,sync=always,grace=0").unwrap();
        assert_eq!(options.sync, Some(SyncPolicy::Always));
        assert_eq!(options.grace_seconds, Some(0));
        assert_eq!(options.kernel, ["noexec"]);
        assert!(!options.read_only);
    }

    #[test]
    fn a_later_word_takes_an_earlier_one_back() {
        let kernel = |list: &str| parse(list).unwrap().kernel;
        assert!(!parse("ro,rw").unwrap().read_only && parse("rw,ro").unwrap().read_only);
        assert_eq!(kernel("noexec,exec,nodev"), ["nodev"]);
        assert_eq!(kernel("exec,noexec,noexec"), ["noexec"]);
        assert!(kernel("noatime,atime").is_empty() && kernel("noatime,relatime").is_empty());
        let relatime = |list: &str| parse(list).unwrap().relatime;
        assert!(relatime("noatime,relatime") && !relatime("relatime,noatime") && !relatime("rw,atime"));
        assert!(kernel("nosuid,nodev,suid,dev").is_empty());
    }

    #[test]
    fn an_unknown_word_is_named() {
        assert!(parse("sync=none,fly").unwrap_err().contains("\"fly\""));
        assert!(parse("grace=soon").unwrap_err().contains("seconds"));
    }
}
