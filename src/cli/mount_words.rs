//! Every word that may stand after `-o`, once: the parser reads by this table, the manual is written from it.

use super::failure::Failure;
use super::mount_options::MountOptions;
use super::{remote_words, set, size};
use nix::unistd::{Group, User};
use skylog::journal::SyncPolicy;
use skylog::store::RemoteOptions;
use std::path::{Path, PathBuf};

/// One word, or one family of words.
pub struct Word {
    /// As people write it: `grace=SECONDS`, `ro`, `x-*`.
    pub spelling: &'static str,
    /// What it means, without the full stop at the end.
    pub means: &'static str,
    /// What reading it changes.
    pub read: Read,
}

/// What reading a word changes.
pub enum Read {
    /// It carries a value.
    Value(fn(&mut MountOptions, &str) -> Result<(), Failure>),
    /// It stands alone.
    Plain(fn(&mut MountOptions)),
    /// It says how to talk to a remote store; a flag of commands as well. An error is a sentence without its beginning.
    Remote(fn(&mut RemoteOptions, &str) -> Result<(), String>),
    /// It sets or clears a flag that the kernel keeps for every mount.
    Flag(&'static str, bool),
    /// It is for mount(8), fstab and systemd.
    Nothing,
}

impl Word {
    /// The part before `=`.
    pub fn name(&self) -> &'static str {
        self.spelling.split('=').next().unwrap_or(self.spelling)
    }

    /// What stands for the value after `=`, if there is one.
    pub fn value(&self) -> Option<&'static str> {
        self.spelling.split_once('=').map(|(_, value)| value)
    }

    fn is(&self, name: &str, value: Option<&str>) -> bool {
        match self.spelling.strip_suffix('*') {
            Some(family) => name.starts_with(family),
            None => self.name() == name && self.spelling.contains('=') == value.is_some(),
        }
    }
}

/// The word that `name` (and `value`, if there was a `=`) is an instance of.
pub fn find(name: &str, value: Option<&str>) -> Option<&'static Word> {
    WORDS.iter().find(|word| word.is(name, value))
}

/// All words and what they mean, a line each, for `--help`.
pub fn listing() -> String {
    let lines = WORDS.iter().map(|word| format!("  {}\n          {}", word.spelling, word.means));
    ["Words after -o:".to_owned()].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

const fn value(
    spelling: &'static str,
    means: &'static str,
    set: fn(&mut MountOptions, &str) -> Result<(), Failure>,
) -> Word {
    Word { spelling, means, read: Read::Value(set) }
}

const fn plain(spelling: &'static str, means: &'static str, set: fn(&mut MountOptions)) -> Word {
    Word { spelling, means, read: Read::Plain(set) }
}

const fn remote(
    spelling: &'static str,
    means: &'static str,
    set: fn(&mut RemoteOptions, &str) -> Result<(), String>,
) -> Word {
    Word { spelling, means, read: Read::Remote(set) }
}

const fn flag(spelling: &'static str, means: &'static str, flag: &'static str, on: bool) -> Word {
    Word { spelling, means, read: Read::Flag(flag, on) }
}

const fn nothing(spelling: &'static str, means: &'static str) -> Word {
    Word { spelling, means, read: Read::Nothing }
}

/// All words.
pub const WORDS: &[Word] = &[
    value(
        "sync=always|everysec|none",
        "When changes become durable without fsync: before they are acknowledged, within a second (the default), or never. \
         A remount and `skylog set` change it",
        set_sync,
    ),
    plain("sync", "The same as sync=always", |options| options.sync = Some(SyncPolicy::Always)),
    plain("async", "Takes back an earlier sync", |options| options.sync = None),
    plain("dirsync", "The same as sync=always, which is more than dirsync asks for", |options| {
        options.sync = Some(SyncPolicy::Always);
    }),
    value(
        "durability=local|store",
        "When an fsync returns: when the disk of this machine has all before it (the default), or when the store has it too, so \
         that the death of the machine loses nothing of it. A remount and `skylog set` change it",
        |options, word| {
            options.durability = Some(word.parse().map_err(Failure::usage)?);
            Ok(())
        },
    ),
    value("grace=SECONDS", "How long a dead store object is kept before it is deleted (3600 by default)", set_grace),
    value(
        "ship_interval=SECONDS",
        "How long after a change it goes into the store (5 by default, 60 when the store is a directory). `skylog set` and a \
         remount change it",
        |options, seconds| {
            options.ship_interval_seconds = Some(set::ship_interval(seconds).map_err(Failure::usage)?);
            Ok(())
        },
    ),
    value(
        "state=DIR",
        "Where journal, checkpoints and the log are kept on this machine, an absolute path. Else inside the store when that is a \
         directory, in /var/lib/skylog/UUID for root, in $XDG_STATE_HOME/skylog/UUID (~/.local/state/skylog/UUID) for others",
        set_state,
    ),
    value("journal_size=SIZE", "How much local disk the journal may use (2GiB by default)", |options, size| {
        options.journal_bytes = Some(size::parse(size).map_err(Failure::usage)?);
        Ok(())
    }),
    value(
        "cache_size=SIZE",
        "How much local disk copies of the store may take, at least 16MiB (10GiB by default; none of a store that is a \
         directory)",
        |options, size| set_size(&mut options.cache.cache_size, size),
    ),
    value(
        "cache_dir=DIR",
        "Where these copies lie, in a folder named by the filesystem's UUID, an absolute path; in the state directory by default",
        set_cache_dir,
    ),
    value(
        "cache_free=SIZE",
        "How much of that disk stays free of them, whoever fills it (5 % of it by default, from 256MiB to 10GiB)",
        |options, size| set_size(&mut options.cache.cache_free, size),
    ),
    value(
        "when_full=wait|enospc",
        "What operations that add do when the journal is full because the store is away or slow: wait until there is room, \
         however long that takes (the default), or fail with ENOSPC. `skylog set` changes it",
        |options, word| {
            options.when_full = Some(word.parse().map_err(Failure::usage)?);
            Ok(())
        },
    ),
    value(
        "read_timeout=SECONDS",
        "How long an operation waits for a store that does not answer before it fails with EIO (60 by default)",
        |options, seconds| {
            options.read_timeout_seconds = Some(read_timeout(seconds).map_err(Failure::usage)?);
            Ok(())
        },
    ),
    value(
        "metrics=ADDRESS",
        "Serve what is counted as text for Prometheus, by HTTP under /metrics: on a port (9190) of this machine, an address with a \
         port (127.0.0.1:9190), or a socket (unix:/path). Whoever can connect reads it",
        |options, address| {
            options.metrics = Some(address.parse().map_err(Failure::usage)?);
            Ok(())
        },
    ),
    plain(
        "takeover",
        "Mount also what another machine holds: that one is read-only from then on, and keeps what it has not shipped",
        |options| options.takeover = true,
    ),
    value("fsname=NAME", "What the kernel lists as the source; the store's URL by default", |options, name| {
        options.source = Some(name.to_owned());
        Ok(())
    }),
    plain("nonempty", "The mount point may hold files; they are hidden while mounted", |options| {
        options.nonempty = true;
    }),
    plain(
        "allow_other",
        "Others than the user who mounts may use it, as far as modes allow. Always so when root mounts; an ordinary user needs \
         a line user_allow_other in /etc/fuse.conf",
        |options| options.allow_other = true,
    ),
    value(
        "uid=USER",
        "All files are shown as this user's (a number or a name), and permissions are decided by that. Owners as they are kept do \
         not change; chown to another than the shown one is refused",
        set_uid,
    ),
    value("gid=GROUP", "The same for the group of all files", set_gid),
    value(
        "umask=OCTAL",
        "Permission bits that no file is shown with, and that nobody has. What chmod sets is kept whole",
        set_umask,
    ),
    plain(
        "writeback",
        "The kernel holds writes back and merges them, for up to half a minute, until the file is closed or synced. Small \
         writes are faster; if the machine or the daemon dies, more is lost, and not in order: promises hold from the moment \
         the kernel sends",
        |options| options.writeback = true,
    ),
    remote(
        "endpoint=URL",
        "Where the service listens, for services other than the usual one of s3://, gs:// or az://; with http:// there is no TLS",
        remote_words::endpoint,
    ),
    remote("region=NAME", "The region of an s3:// bucket (us-east-1 if nothing says so)", remote_words::region),
    remote(
        "path_style",
        "The bucket stands in the path of addresses, as most services at an endpoint of their own want it (the default with one)",
        remote_words::path_style,
    ),
    remote(
        "virtual_hosted",
        "The bucket stands in the host of addresses, as Amazon wants it (the default without an endpoint)",
        remote_words::virtual_hosted,
    ),
    remote(
        "profile=NAME",
        "The section of ~/.aws/credentials and ~/.aws/config to take keys from, also when the environment has some",
        remote_words::profile,
    ),
    remote("uploads=N", "Requests at the same time that send an object (8 by default)", remote_words::uploads),
    remote("downloads=N", "All other requests at the same time (16 by default)", remote_words::downloads),
    remote("upload_limit=SIZE/s", "Bytes per second that are sent, all requests together", remote_words::upload_limit),
    remote(
        "download_limit=SIZE/s",
        "Bytes per second that are received, all requests together",
        remote_words::download_limit,
    ),
    remote(
        "request_timeout=SECONDS",
        "A request that stands still for so long has failed (30 by default), and is tried again",
        remote_words::request_timeout,
    ),
    plain(
        "remount",
        "Changes a mount that is there: the flags of the kernel below, sync and ship_interval. All else is said when mounting",
        |options| options.remount = true,
    ),
    flag(
        "ro",
        "Follows what is written where the filesystem is mounted for writing, here or elsewhere, and changes nothing. In a remount of          one that writes: the kernel refuses every change, until a remount with rw",
        "ro",
        true,
    ),
    flag("rw", "Takes back ro", "ro", false),
    flag("nodev", "Device files cannot be opened", "nodev", true),
    flag("dev", "Takes back nodev", "nodev", false),
    flag("nosuid", "Set-user-id and set-group-id bits have no effect", "nosuid", true),
    flag("suid", "Takes back nosuid", "nosuid", false),
    flag("noexec", "Nothing can be executed", "noexec", true),
    flag("exec", "Takes back noexec", "noexec", false),
    plain("noatime", "Reading leaves access times alone, as without any word", |options| set_relatime(options, false)),
    plain(
        "relatime",
        "A read that the kernel's cache does not answer is noted, if the file changed since or a day has passed. A \
         remount does not change it",
        |options| set_relatime(options, true),
    ),
    flag("atime", "Takes back the kernel's flag noatime", "noatime", false),
    nothing("strictatime", "The kernel keeps no access times on FUSE by itself"),
    nothing("nodiratime", "The kernel keeps no access times on FUSE by itself"),
    nothing("diratime", "The kernel keeps no access times on FUSE by itself"),
    nothing("defaults", "Stands for no word at all"),
    nothing("auto", "Mounted by `mount -a`"),
    nothing("noauto", "Not mounted by `mount -a`"),
    nothing("user", "Ordinary users may mount it, through fusermount3"),
    nothing("user=NAME", "Who has mounted it"),
    nothing("nouser", "Takes back user"),
    nothing("users", "As user; any of them may unmount it"),
    nothing("nousers", "Takes back users"),
    nothing("owner", "As user, for one of them"),
    nothing("noowner", "Takes back owner"),
    nothing("group", "As user, for one group"),
    nothing("nogroup", "Takes back group"),
    nothing("nofail", "The system starts without it"),
    nothing("_netdev", "Mounted when the network is there"),
    nothing("comment=TEXT", "For people"),
    nothing("helper=NAME", "For mount(8)"),
    nothing("uhelper=NAME", "For umount(8)"),
    nothing("silent", "For the kernel's log"),
    nothing("loud", "For the kernel's log"),
    nothing("default_permissions", "Always so: the kernel decides by owner, group and mode"),
    nothing("user_id=UID", "Listed by the kernel"),
    nothing("group_id=GID", "Listed by the kernel"),
    nothing("max_read=BYTES", "Listed by the kernel"),
    nothing("x-*", "For mount(8), systemd and others"),
    nothing("X-*", "For mount(8) and others"),
];

/// Seconds to wait for a store, at least one.
pub fn read_timeout(seconds: &str) -> Result<u64, String> {
    let seconds: Option<u64> = seconds.parse().ok().filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| "the time to wait for the store is a number of seconds, at least 1".to_owned())
}

fn set_relatime(options: &mut MountOptions, relatime: bool) {
    options.relatime = relatime;
    options.flags.insert("noatime", !relatime);
}

fn set_sync(options: &mut MountOptions, policy: &str) -> Result<(), Failure> {
    options.sync = Some(policy.parse().map_err(Failure::usage)?);
    Ok(())
}

fn set_grace(options: &mut MountOptions, seconds: &str) -> Result<(), Failure> {
    let wrong = |_| Failure::usage(format_args!("grace={seconds}: give a number of seconds"));
    options.grace_seconds = Some(seconds.parse().map_err(wrong)?);
    Ok(())
}

fn set_state(options: &mut MountOptions, dir: &str) -> Result<(), Failure> {
    if !Path::new(dir).is_absolute() {
        return Err(Failure::usage(format_args!("state={dir}: give an absolute path")));
    }
    options.state = Some(PathBuf::from(dir));
    Ok(())
}

fn set_size(to: &mut Option<u64>, size: &str) -> Result<(), Failure> {
    *to = Some(size::parse(size).map_err(Failure::usage)?);
    Ok(())
}

fn set_cache_dir(options: &mut MountOptions, dir: &str) -> Result<(), Failure> {
    if !Path::new(dir).is_absolute() {
        return Err(Failure::usage(format_args!("cache_dir={dir}: give an absolute path")));
    }
    options.cache.cache_dir = Some(PathBuf::from(dir));
    Ok(())
}

fn set_uid(options: &mut MountOptions, user: &str) -> Result<(), Failure> {
    let by_name = || User::from_name(user).ok().flatten().map(|user| user.uid.as_raw());
    options.uid = Some(number_or(user, by_name).ok_or_else(|| nobody("uid", user, "user"))?);
    Ok(())
}

fn set_gid(options: &mut MountOptions, group: &str) -> Result<(), Failure> {
    let by_name = || Group::from_name(group).ok().flatten().map(|group| group.gid.as_raw());
    options.gid = Some(number_or(group, by_name).ok_or_else(|| nobody("gid", group, "group"))?);
    Ok(())
}

fn number_or(text: &str, by_name: impl FnOnce() -> Option<u32>) -> Option<u32> {
    // The number of nobody at all means "leave it" to the kernel.
    text.parse().ok().filter(|number| *number != u32::MAX).or_else(by_name)
}

fn nobody(word: &str, name: &str, kind: &str) -> Failure {
    Failure::usage(format_args!("{word}={name}: there is no {kind} of this name or number"))
}

fn set_umask(options: &mut MountOptions, bits: &str) -> Result<(), Failure> {
    let bits = u32::from_str_radix(bits, 8).ok().filter(|bits| *bits <= 0o777);
    options.umask =
        Some(bits.ok_or_else(|| Failure::usage("umask= takes permission bits as an octal number, such as 022"))?);
    Ok(())
}
