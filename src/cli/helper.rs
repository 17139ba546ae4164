//! The program under the names `mount.skylog`, `mount.fuse.skylog`, `umount.skylog` and `umount.fuse.skylog`: what mount(8)
//! and umount(8) call for our type. Their command lines are turned into those of `skylog mount` and `skylog umount`.
//!
//! Exit codes are those of mount(8): 0 done, 1 the command line is wrong, 32 it failed.
//!
//! No circle: the flags of a remount go straight to the kernel, and the daemon unmounts by itself.

use super::failure::{Failure, Outcome};
use super::{Arguments, Command, mount_options, mount_words, output, umount::Umount, usage};
use clap::Parser;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What mount(8) calls to mount a skylog store.
#[derive(Parser)]
#[command(name = "mount.skylog", version, after_long_help = mount_words::listing())]
pub struct MountHelper {
    /// The store: an absolute path or a URL.
    spec: String,
    /// The mount point.
    dir: PathBuf,
    /// Options, separated by commas, later ones win; listed below.
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Pass over options that nobody knows.
    #[arg(short = 's')]
    sloppy: bool,
    /// Only see whether it could be mounted.
    #[arg(short = 'f')]
    fake: bool,
    /// Say what was done.
    #[arg(short = 'v')]
    verbose: bool,
    /// Taken from mount(8), and without meaning: there is no table to be spared.
    #[arg(short = 'n')]
    no_table: bool,
    /// A mount namespace; not supported.
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
    /// The type as mount(8) knows it, skylog or fuse.skylog.
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
}

/// What umount(8) calls to unmount a skylog store.
#[derive(Parser)]
#[command(name = "umount.skylog", version)]
pub struct UmountHelper {
    /// The mount point.
    dir: PathBuf,
    /// Leave in the journal what is not shipped, as `skylog umount --now`.
    #[arg(short = 'f')]
    force: bool,
    /// Take the mount away at once; it ends, and what is left is shipped, when the last file in it is closed.
    #[arg(short = 'l')]
    lazy: bool,
    /// If it is in use, make it read-only.
    #[arg(short = 'r')]
    read_only: bool,
    /// Say what was done.
    #[arg(short = 'v')]
    verbose: bool,
    /// Taken from umount(8), and without meaning: there is no table to be spared.
    #[arg(short = 'n')]
    no_table: bool,
    /// A mount namespace; not supported.
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
    /// The type as umount(8) knows it, skylog or fuse.skylog.
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
}

/// One of the two helpers, called with these words.
pub struct Helper<'a> {
    name: &'a str,
    words: &'a [OsString],
}

/// The helper that a command line is for, if it is for one.
pub fn called_as(words: &[OsString]) -> Option<Helper<'_>> {
    let name = Path::new(words.first()?).file_name().and_then(OsStr::to_str)?;
    matches!(name, "mount.skylog" | "mount.fuse.skylog" | "umount.skylog" | "umount.fuse.skylog")
        .then_some(Helper { name, words })
}

impl Helper<'_> {
    /// Does what mount(8) or umount(8) wants.
    pub fn run(&self) -> ExitCode {
        let done = match self.name.starts_with('u') {
            true => UmountHelper::try_parse_from(self.words).map(|helper| helper.run()),
            false => MountHelper::try_parse_from(self.words).map(|helper| helper.run()),
        };
        match done {
            Ok(Ok(())) => ExitCode::SUCCESS,
            Ok(Err(failure)) => failure.report_to_mount(),
            Err(e) if e.use_stderr() => usage(&e, self.name).report_to_mount(),
            Err(e) => {
                e.print().ok();
                ExitCode::SUCCESS
            }
        }
    }
}

impl MountHelper {
    fn run(&self) -> Outcome {
        no_namespace(self.namespace.as_deref())?;
        one_of_ours(self.kind.as_deref())?;
        if !self.spec.starts_with('/') && !self.spec.contains("://") {
            return Err(Failure::usage(format_args!("{}: give the store as an absolute path or as a URL", self.spec)));
        }
        let words = self.command_line();
        let Command::Mount(mount) = parse(&words)? else { unreachable!("the command line was made for it") };
        mount.run(&words)?;
        if self.verbose {
            output::line(format_args!("skylog: {} mounted on {}", self.spec, self.dir.display()));
        }
        Ok(())
    }

    /// The command line of `skylog mount`.
    fn command_line(&self) -> Vec<OsString> {
        let mut options = self.options.clone();
        if self.sloppy {
            options = vec![mount_options::known(&options)];
        }
        // `mount -a` knows by the source that a line of fstab is mounted already. A comma would end the word.
        if !self.spec.contains([',', '\\']) {
            options.insert(0, format!("fsname={}", self.spec));
        }
        let mut words: Vec<OsString> = ["skylog", "mount", "-o"].map(OsString::from).into();
        words.push(options.join(",").into());
        words.extend(self.fake.then(|| "--fake".into()));
        words.extend(["--".into(), self.spec.clone().into(), self.dir.clone().into_os_string()]);
        words
    }
}

impl UmountHelper {
    fn run(&self) -> Outcome {
        no_namespace(self.namespace.as_deref())?;
        one_of_ours(self.kind.as_deref())?;
        let umount = Umount { dir: self.dir.clone(), now: self.force, lazy: self.lazy };
        match umount.run() {
            Err(failure) if self.read_only => self.make_read_only().map_err(|_| failure)?,
            done => done?,
        }
        if self.verbose {
            output::line(format_args!("skylog: {} unmounted", self.dir.display()));
        }
        Ok(())
    }

    fn make_read_only(&self) -> Outcome {
        let dir = super::mount_point::canonical(&self.dir)?;
        super::remount::remount(&dir, &mount_options::MountOptions::parse(&["ro".into()])?)
    }
}

fn parse(words: &[OsString]) -> Result<Command, Failure> {
    Arguments::try_parse_from(words).map(|arguments| arguments.command).map_err(|e| usage(&e, "skylog mount"))
}

fn no_namespace(namespace: Option<&OsStr>) -> Outcome {
    match namespace {
        Some(_) => Err(Failure::usage("-N is not supported; `nsenter --mount=…` before the command does the same")),
        None => Ok(()),
    }
}

fn one_of_ours(kind: Option<&str>) -> Outcome {
    match kind {
        Some(kind) if !matches!(kind, "skylog" | "fuse.skylog") => {
            Err(Failure::usage(format_args!("this program mounts the type skylog, not {kind}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn command_line(line: &str) -> String {
        let helper = MountHelper::try_parse_from(words(line)).unwrap();
        let made = helper.command_line().into_iter().map(|word| word.into_string().unwrap());
        made.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_name_decides() {
        let name = |line: &str| called_as(&words(line)).map(|helper| helper.name.to_owned());
        assert_eq!(name("/sbin/mount.fuse.skylog x y").as_deref(), Some("mount.fuse.skylog"));
        assert_eq!(name("umount.skylog x").as_deref(), Some("umount.skylog"));
        assert_eq!(name("/usr/bin/skylog umount x"), None);
    }

    #[test]
    fn mount_s_command_line_becomes_ours() {
        assert_eq!(
            command_line("mount.skylog file:///s /mnt -s -o rw,fly,grace=5 -t skylog"),
            "skylog mount -o fsname=file:///s,rw,grace=5 -- file:///s /mnt"
        );
        assert_eq!(command_line("mount.skylog /a,b /mnt -f"), "skylog mount -o  --fake -- /a,b /mnt");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let said =
            |line: &str| MountHelper::try_parse_from(words(line)).unwrap().run().unwrap_err().sentence().to_owned();
        assert!(said("mount.skylog store /mnt").contains("absolute path"));
        assert!(said("mount.skylog /store /mnt -N 1").contains("nsenter"));
        assert!(said("mount.skylog /store /mnt -t ext4").contains("not ext4"));
    }
}
