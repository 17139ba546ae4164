//! Every word that may stand after `-o`, once: the parser reads by this table, the manual is written from it.

use super::failure::Failure;
use super::mount_options::MountOptions;
use super::size;
use nix::unistd::{Group, User};
use skylog::journal::SyncPolicy;
use std::path::{Path, PathBuf};

/// One word, or one family of words.
pub struct Word {
    /// As people write it: `grace=SECONDS`, `ro`, `x-*`.
    pub spelling: &'static str,
    /// What it means, as a sentence without its full stop.
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
    let lines = WORDS.iter().map(|word| format!("  {:<28} {}", word.spelling, word.means));
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
        "When changes become durable without fsync; `skylog set` and a remount change it later",
        set_sync,
    ),
    plain("sync", "The same as sync=always", |options| options.sync = Some(SyncPolicy::Always)),
    plain("async", "Takes back an earlier sync", |options| options.sync = None),
    plain("dirsync", "As sync=always, which is more than dirsync asks for", |options| {
        options.sync = Some(SyncPolicy::Always)
    }),
    value("grace=SECONDS", "How long a dead store object is kept before it is deleted", set_grace),
    value(
        "state=DIR",
        "Where journal and checkpoints are kept on this machine, as --state; an absolute path",
        set_state,
    ),
    value("journal_size=SIZE", "How much local disk the journal may use, as --journal-size", |options, size| {
        options.journal_bytes = Some(size::parse(size).map_err(Failure::usage)?);
        Ok(())
    }),
    value("fsname=NAME", "What the kernel lists as the source; the store's URL otherwise", set_source),
    plain("nonempty", "The mount point may hold files; they are hidden while mounted", |options| {
        options.nonempty = true
    }),
    plain(
        "allow_other",
        "Users other than the one who mounts may use it; when root mounts they always may",
        |options| options.allow_other = true,
    ),
    value("uid=USER", "All files are shown as this user's, a number or a name", set_uid),
    value("gid=GROUP", "All files are shown as this group's, a number or a name", set_gid),
    value("umask=OCTAL", "Permission bits that no file is shown with", set_umask),
    plain(
        "writeback",
        "The kernel holds writes back for up to half a minute and merges them; only fsync makes the daemon know of them",
        |options| options.writeback = true,
    ),
    plain("remount", "Changes the flags of a mount that is there", |options| options.remount = true),
    flag("ro", "The kernel refuses every change", "ro", true),
    flag("rw", "Takes back ro", "ro", false),
    flag("nodev", "Device files are not opened", "nodev", true),
    flag("dev", "Takes back nodev", "nodev", false),
    flag("nosuid", "Set-user-id and set-group-id bits have no effect", "nosuid", true),
    flag("suid", "Takes back nosuid", "nosuid", false),
    flag("noexec", "Nothing is executed", "noexec", true),
    flag("exec", "Takes back noexec", "noexec", false),
    plain("noatime", "Reading leaves access times alone, as without any word", |options| set_relatime(options, false)),
    plain(
        "relatime",
        "A read that the kernel's cache does not answer is noted, if the file changed since or a day has passed",
        |options| set_relatime(options, true),
    ),
    flag("atime", "Takes back the kernel's flag noatime", "noatime", false),
    nothing("strictatime", "The kernel keeps no strict access times on FUSE"),
    nothing("nodiratime", "Access times of directories, as strictatime"),
    nothing("diratime", "Access times of directories, as strictatime"),
    nothing("defaults", "No other word is meant"),
    nothing("auto", "For `mount -a`"),
    nothing("noauto", "For `mount -a`"),
    nothing("user", "Ordinary users may mount it; for mount(8)"),
    nothing("user=NAME", "Who mounted it; for umount(8)"),
    nothing("nouser", "For mount(8)"),
    nothing("users", "For mount(8)"),
    nothing("nousers", "For mount(8)"),
    nothing("owner", "For mount(8)"),
    nothing("noowner", "For mount(8)"),
    nothing("group", "For mount(8)"),
    nothing("nogroup", "For mount(8)"),
    nothing("nofail", "For the start of the system"),
    nothing("_netdev", "For the start of the system"),
    nothing("comment=TEXT", "For people"),
    nothing("helper=NAME", "For mount(8)"),
    nothing("uhelper=NAME", "For umount(8)"),
    nothing("silent", "For the kernel's log"),
    nothing("loud", "For the kernel's log"),
    nothing("default_permissions", "The kernel always checks permissions"),
    nothing("user_id=UID", "Listed by the kernel"),
    nothing("group_id=GID", "Listed by the kernel"),
    nothing("max_read=BYTES", "Listed by the kernel"),
    nothing("x-*", "For mount(8), systemd and others"),
    nothing("X-*", "For mount(8) and others"),
];

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

fn set_source(options: &mut MountOptions, name: &str) -> Result<(), Failure> {
    options.source = Some(name.to_owned());
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
