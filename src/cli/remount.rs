//! `mount -o remount,…`: the flags that the kernel keeps for a mount, the sync policy and the ship interval change while it
//! is mounted; all else is said at the mount.
//!
//! The flags go to the kernel by its own call: a newer mount(8) would hand the kernel the words that it lists for a FUSE
//! mount, and the kernel takes none of them in a remount.

use super::control::{Ask, Conversation};
use super::failure::{Failure, Outcome};
use super::mount_options::MountOptions;
use super::mount_point::{self, MountLine};
use super::registry::{self, Registration};
use nix::errno::Errno;
use nix::mount::MsFlags;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The kernel counts a file as open until the daemon has answered that it was closed, which may be after `close` returned.
const CLOSING_MAX: Duration = Duration::from_secs(2);
/// Between two tries.
const CLOSING_STEP: Duration = Duration::from_millis(10);

/// The flags, by the names that the kernel lists them under.
const FLAGS: [(&str, MsFlags); 7] = [
    ("ro", MsFlags::MS_RDONLY),
    ("nosuid", MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC),
    ("noatime", MsFlags::MS_NOATIME),
    ("nodiratime", MsFlags::MS_NODIRATIME),
    ("relatime", MsFlags::MS_RELATIME),
];

/// Changes the mount on `dir`.
pub fn remount(dir: &Path, options: &MountOptions) -> Outcome {
    let shown = dir.display();
    let mounted = mount_point::mounted_at(dir).filter(MountLine::is_skylog);
    let Some(line) = mounted else {
        return Err(Failure::failed(format_args!("no skylog is mounted on {shown}; without `remount` it will be")));
    };
    let found = registry::find_mount(dir).map(|(_, registration)| registration);
    if let Some(registration) = &found {
        nothing_fixed(registration, options)?;
    }
    let follows = found.is_some_and(|registration| registration.follows);
    if follows && options.flags.get("ro") == Some(&false) {
        return Err(Failure::failed(format_args!(
            "{shown} follows a mount that writes and cannot become one; `umount {shown}` and mount again without ro"
        )));
    }
    apply(dir, flags(&line, options))?;
    if let Some(policy) = options.sync {
        ask(dir, &Ask::Set { sync: policy.to_string() })?;
    }
    if let Some(durability) = options.durability {
        ask(dir, &Ask::Durability { word: durability.to_string() })?;
    }
    if let Some(seconds) = options.ship_interval_seconds {
        ask(dir, &Ask::ShipInterval { seconds })?;
    }
    // Whoever makes a mount read-only means to keep what is in it.
    if options.flag("ro") && !follows { ask(dir, &Ask::Sync) } else { Ok(()) }
}

/// The flags of the mount, with those changed that were named.
fn flags(line: &MountLine, options: &MountOptions) -> MsFlags {
    let on =
        |name: &str| options.flags.get(name).copied().unwrap_or_else(|| line.flags.iter().any(|flag| flag == name));
    FLAGS.iter().filter(|(name, _)| on(name)).map(|(_, flag)| *flag).collect()
}

fn apply(dir: &Path, flags: MsFlags) -> Outcome {
    let shown = dir.display();
    apply_when_closed(dir, flags).map_err(|e| match e {
        Errno::EPERM => Failure::failed(format_args!("only root may change the flags of the mount on {shown}")),
        Errno::EBUSY => Failure::failed(format_args!(
            "{shown} cannot become read-only: files in it are open for writing; `fuser -vm {shown}` says by whom"
        )),
        e => Failure::failed(format_args!("{shown} cannot be remounted: {}", e.desc())),
    })
}

/// Tries again while the filesystem is busy, for as long as files that were closed a moment ago may make it so.
fn apply_when_closed(dir: &Path, flags: MsFlags) -> nix::Result<()> {
    let nothing: Option<&str> = None;
    let begin = Instant::now();
    loop {
        match nix::mount::mount(nothing, dir, nothing, MsFlags::MS_REMOUNT | flags, nothing) {
            Err(Errno::EBUSY) if begin.elapsed() < CLOSING_MAX => sleep(CLOSING_STEP),
            done => return done,
        }
    }
}

/// Refuses what is said at the mount and for as long as it lasts, unless it is what the mount has anyway.
fn nothing_fixed(mounted: &Registration, asked: &MountOptions) -> Outcome {
    let has = &mounted.options;
    let other = [
        ("grace", asked.grace_seconds.is_some() && asked.grace_seconds != has.grace_seconds),
        ("state", asked.state.as_ref().is_some_and(|state| *state != mounted.state)),
        ("journal_size", asked.journal_bytes.is_some() && asked.journal_bytes != has.journal_bytes),
        ("uid", asked.uid.is_some() && asked.uid != has.uid),
        ("gid", asked.gid.is_some() && asked.gid != has.gid),
        ("umask", asked.umask.is_some() && asked.umask != has.umask),
        ("writeback", asked.writeback && !has.writeback),
        ("allow_other", asked.allow_other && !has.allow_other),
    ];
    let other = other.iter().find(|(_, differs)| *differs).map(|(name, _)| *name);
    let other = other.or(asked.cache.first_not_in(&has.cache));
    match other.or(asked.remote.first_not_in(&has.remote)) {
        None => Ok(()),
        Some(name) => Err(Failure::usage(format_args!(
            "{name} cannot change in a remount; `umount {0}` and mount again",
            mounted.dir.display()
        ))),
    }
}

fn ask(dir: &Path, ask: &Ask) -> Outcome {
    Conversation::with(dir, ask)?.next().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stay_unless_they_are_named() {
        let line = MountLine {
            device: "0:98".into(),
            dir: "/mnt".into(),
            filesystem: "fuse.skylog".into(),
            flags: ["rw", "nosuid", "nodev", "relatime"].map(String::from).into(),
            owner: Some(0),
        };
        let after = |words: &str| flags(&line, &MountOptions::parse(&[words.to_string()]).unwrap());
        let (nosuid, nodev, relatime) = (MsFlags::MS_NOSUID, MsFlags::MS_NODEV, MsFlags::MS_RELATIME);
        assert_eq!(after("ro"), MsFlags::MS_RDONLY | nosuid | nodev | relatime);
        assert_eq!(after("rw,suid,noexec"), MsFlags::MS_NOEXEC | nodev | relatime);
    }
}
