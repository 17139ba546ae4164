//! The words after `-o`, read. Which words there are is said in `mount_words`.

use super::cache_words::CacheWords;
use super::failure::Failure;
use super::metrics_endpoint::Address;
use super::mount_words::{self, Read};
use super::remote_words::RemoteWords;
use super::store_arg::StoreArg;
use serde::{Deserialize, Serialize};
use skylog::fuse::{MountConfig, Shown};
use skylog::journal::SyncPolicy;
use skylog::ship::Durability;
use skylog::volume::WhenFull;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where in the kernel's and our own behaviour a mount differs from the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOptions {
    /// When changes become durable without fsync, at first.
    #[serde(skip)]
    pub sync: Option<SyncPolicy>,
    /// When an fsync returns, at first.
    #[serde(skip)]
    pub durability: Option<Durability>,
    /// How long a dead store object is kept.
    pub grace_seconds: Option<u64>,
    /// The age at which changes are shipped.
    pub ship_interval_seconds: Option<u64>,
    /// The state directory.
    pub state: Option<PathBuf>,
    /// Local disk for the journal, bytes.
    pub journal_bytes: Option<u64>,
    /// Copies of the store on local disk.
    #[serde(default)]
    pub cache: CacheWords,
    /// What operations that add do when the journal is full.
    #[serde(skip)]
    pub when_full: Option<WhenFull>,
    /// How long operations wait for a store that does not answer.
    #[serde(skip)]
    pub read_timeout_seconds: Option<u64>,
    /// Where metrics are served.
    #[serde(skip)]
    pub metrics: Option<Address>,
    /// What another machine holds is taken from it.
    #[serde(skip)]
    pub takeover: bool,
    /// What the kernel lists as the source.
    pub source: Option<String>,
    /// The mount point may hold files.
    pub nonempty: bool,
    /// Reading is noted in access times. In a remount mount(8) names what the kernel lists, so it says nothing there.
    #[serde(skip)]
    pub relatime: bool,
    /// Others than the user who mounts may use it.
    pub allow_other: bool,
    /// The kernel holds writes back.
    pub writeback: bool,
    /// The owner that everything is shown with.
    pub uid: Option<u32>,
    /// The group that everything is shown with.
    pub gid: Option<u32>,
    /// Permission bits that nothing is shown with.
    pub umask: Option<u32>,
    /// How to talk to a remote store.
    #[serde(default)]
    pub remote: RemoteWords,
    /// The flags of a mount that is there are to change.
    #[serde(skip)]
    pub remount: bool,
    /// Flags of the kernel that were named, set (`nosuid`, `ro`) or cleared (`suid`, `rw`).
    #[serde(skip)]
    pub flags: BTreeMap<&'static str, bool>,
}

impl MountOptions {
    /// Reads all `-o` lists of a command line; later words win.
    pub fn parse(lists: &[String]) -> Result<MountOptions, Failure> {
        let mut options = MountOptions::default();
        for word in words(lists) {
            options.add(word)?;
        }
        Ok(options)
    }

    /// Whether a flag of the kernel is set.
    pub fn flag(&self, flag: &str) -> bool {
        self.flags.get(flag).copied().unwrap_or(false)
    }

    /// How to mount a store with these.
    pub fn config(&self, dir: &Path, store: &StoreArg) -> MountConfig {
        MountConfig {
            dir: dir.to_path_buf(),
            source: self.source.clone().unwrap_or_else(|| store.url()),
            read_only: self.flag("ro"),
            relatime: self.relatime,
            allow_other: self.allow_other,
            writeback: self.writeback,
            shown: Shown { uid: self.uid, gid: self.gid, umask: self.umask.unwrap_or(0) },
            flags: self.flags.iter().filter(|(_, on)| **on).map(|(flag, _)| *flag).collect(),
        }
    }

    /// The first word that only means something where files are changed.
    pub fn first_of_writer(&self) -> Option<&'static str> {
        let named = [
            ("grace", self.grace_seconds.is_some()),
            ("ship_interval", self.ship_interval_seconds.is_some()),
            ("journal_size", self.journal_bytes.is_some()),
            ("when_full", self.when_full.is_some()),
            ("writeback", self.writeback),
            ("durability", self.durability.is_some()),
            ("takeover", self.takeover),
        ];
        named.iter().find(|(_, named)| *named).map(|(name, _)| *name)
    }

    fn add(&mut self, word: &str) -> Result<(), Failure> {
        let (name, value) = split(word);
        let Some(found) = mount_words::find(name, value) else {
            return Err(Failure::usage(format_args!(
                "unknown mount option {word:?}; `skylog mount --help` lists those there are"
            )));
        };
        match found.read {
            Read::Value(set) => set(self, value.unwrap_or_default())?,
            Read::Plain(set) => set(self),
            Read::Remote(_) => self.remote.set(name, value.unwrap_or_default()),
            Read::Flag(flag, on) => drop(self.flags.insert(flag, on)),
            Read::Nothing => {}
        }
        Ok(())
    }
}

/// Leaves out the words that nobody knows, as `mount -s` asks.
pub fn known(lists: &[String]) -> String {
    let known = words(lists).filter(|word| {
        let (name, value) = split(word);
        mount_words::find(name, value).is_some()
    });
    known.collect::<Vec<_>>().join(",")
}

fn words(lists: &[String]) -> impl Iterator<Item = &str> {
    lists.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty())
}

fn split(word: &str) -> (&str, Option<&str>) {
    word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::mount_words::WORDS;

    fn parse(list: &str) -> Result<MountOptions, String> {
        MountOptions::parse(&[list.to_string()]).map_err(|f| f.sentence().to_string())
    }

    #[test]
    fn words_are_read_and_the_last_wins() {
        let options = parse("rw,sync=none,noexec,sync=always,grace=0").unwrap();
        assert_eq!(options.sync, Some(SyncPolicy::Always));
        assert_eq!(options.grace_seconds, Some(0));
        let patience = parse("when_full=enospc,read_timeout=5").unwrap();
        assert_eq!((patience.when_full, patience.read_timeout_seconds), (Some(WhenFull::Enospc), Some(5)));
        assert!(options.flag("noexec") && !options.flag("ro"));
        assert_eq!(parse("ship_interval=9").unwrap().ship_interval_seconds, Some(9));
        assert_eq!(parse("durability=local,durability=store").unwrap().durability, Some(Durability::Store));
        assert!(parse("takeover").unwrap().takeover && !parse("").unwrap().takeover);
        assert_eq!(parse("sync=none,sync").unwrap().sync, Some(SyncPolicy::Always));
        assert_eq!(parse("sync,async").unwrap().sync, None);
    }

    #[test]
    fn owners_are_numbers_or_names() {
        let options = parse("uid=12,gid=root,umask=027").unwrap();
        assert_eq!((options.uid, options.gid, options.umask), (Some(12), Some(0), Some(0o27)));
    }

    #[test]
    fn a_later_word_takes_an_earlier_one_back() {
        let flag = |list: &str, flag: &str| parse(list).unwrap().flag(flag);
        assert!(!flag("ro,rw", "ro") && flag("rw,ro", "ro"));
        assert!(!flag("noexec,exec,nodev", "noexec") && flag("noexec,exec,nodev", "nodev"));
        assert!(flag("exec,noexec,noexec", "noexec"));
        assert!(!flag("noatime,atime", "noatime") && !flag("noatime,relatime", "noatime"));
        let relatime = |list: &str| parse(list).unwrap().relatime;
        assert!(relatime("noatime,relatime") && !relatime("relatime,noatime") && !relatime("rw,atime"));
    }

    #[test]
    fn what_fstab_and_systemd_add_changes_nothing() {
        let words =
            "defaults,noauto,user,nofail,_netdev,x-systemd.automount,X-mount.mkdir=0755,comment=my data,user=joe";
        assert_eq!(parse(words).unwrap(), MountOptions::default());
    }

    #[test]
    fn an_unknown_word_is_named_or_left_out() {
        assert!(parse("sync=none,fly").unwrap_err().contains("\"fly\""));
        assert!(parse("grace").unwrap_err().contains("\"grace\""), "it wants a value");
        assert!(parse("ro=1").unwrap_err().contains("\"ro=1\""), "it wants none");
        assert!(parse("grace=soon").unwrap_err().contains("seconds"));
        assert!(parse("ship_interval=0").unwrap_err().contains("at least 1"));
        assert!(parse("durability=cloud").unwrap_err().contains("store"));
        assert!(parse("umask=9").unwrap_err().contains("octal") && parse("umask=1000").is_err());
        assert!(parse("uid=nobody at all").unwrap_err().contains("no user"));
        assert!(parse("when_full=explode").unwrap_err().contains("enospc"));
        assert!(parse("read_timeout=0").unwrap_err().contains("seconds"));
        assert!(parse("state=here").unwrap_err().contains("absolute"));
        assert_eq!(known(&["fly,ro".into(), "swim=1,grace=5".into()]), "ro,grace=5");
    }

    #[test]
    fn every_word_of_the_table_is_read_as_its_own() {
        for word in WORDS {
            let written = word.spelling.replace('*', "some");
            let (name, value) = split(&written);
            let found = mount_words::find(name, value).map(|found| found.spelling);
            assert_eq!(found, Some(word.spelling));
        }
    }
}
