//! `skylog mount STORE DIR`: starts the daemon of a mount and returns once the mount is live.
//!
//! Without `--foreground` the command starts itself again as the daemon, in a session of its own, and reads from a pipe what
//! it says: progress of a long replay, then `live`, or the one sentence that says why not.

use super::cache_words::CacheWords;
use super::failure::{Failure, Outcome};
use super::metrics_endpoint::{Address, Endpoint};
use super::mount_options::MountOptions;
use super::notify::Effort;
use super::progress::Progress;
use super::registry::{Claim, Registration};
use super::remote_words::RemoteWords;
use super::remount::remount;
use super::site::Site;
use super::store_arg::{Found, StoreArg};
use super::world::{self, Sizes};
use super::{
    daemon, follower, log_file, mkfs, mount_point, mount_words, output, registry, set, size, state_dir, state_root,
};
use skylog::format::superblock::Superblock;
use skylog::format::usage::UsageLimit;
use skylog::media::{LockGuard, Owner};
use skylog::recovery::{Holding, Known, MountError, Tuning, World};
use skylog::ship::Durability;
use skylog::volume::{Patience, Volume, WhenFull};
use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Mount a store on a directory.
#[derive(clap::Args)]
#[command(after_long_help = mount_words::listing())]
pub struct Mount {
    /// The store: a directory or a URL. With `memory://` a new filesystem lives in the daemon's memory and is gone after the unmount.
    store: StoreArg,
    /// The mount point: an empty directory.
    dir: PathBuf,
    /// Make the filesystem first if there is none.
    #[arg(long)]
    create: bool,
    /// Where journal and checkpoints are kept on this machine. Else inside the store when that is a directory, in a temporary
    /// directory with memory://, in /var/lib/skylog/UUID for root, in $XDG_STATE_HOME/skylog/UUID (~/.local/state/skylog/UUID) for others.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Follow what is written where the filesystem is mounted for writing, here or elsewhere, and change nothing: the same as -o ro.
    #[arg(long, conflicts_with_all = [
        "create", "journal_size", "grace", "ship_interval", "when_full", "durability", "takeover",
    ])]
    read_only: bool,
    /// Mount also what another machine holds: that one is read-only from then on, and keeps what it has not shipped.
    #[arg(long)]
    takeover: bool,
    /// Stay in the foreground, log to standard error; ends when unmounted or interrupted.
    #[arg(long)]
    foreground: bool,
    /// How much local disk the journal may use (default 2GiB).
    #[arg(long, value_parser = size::parse)]
    journal_size: Option<u64>,
    /// With --create: size of segments.
    #[arg(long, value_parser = size::parse, requires = "create")]
    segment_size: Option<u64>,
    /// How long a dead store object is kept before it is deleted, seconds.
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u64>,
    /// How long after a change it goes into the store, seconds (default 5, with a directory 60).
    #[arg(long, value_name = "SECONDS", value_parser = set::ship_interval)]
    ship_interval: Option<u64>,
    /// When an fsync returns: when the disk of this machine has it (the default), or when the store has it too.
    #[arg(long, value_name = "local|store")]
    durability: Option<Durability>,
    /// What operations that add do when the journal is full (default wait).
    #[arg(long, value_name = "wait|enospc")]
    when_full: Option<WhenFull>,
    /// How long an operation waits for a store that does not answer, seconds (default 60).
    #[arg(long, value_name = "SECONDS", value_parser = mount_words::read_timeout)]
    read_timeout: Option<u64>,
    /// Serve what is counted as text for Prometheus: a port of this machine, an address with a port, or unix:/path.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<Address>,
    /// Options, separated by commas, later ones win; listed below.
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Only see whether it could be mounted.
    #[arg(long, hide = true)]
    fake: bool,
    /// This is the daemon, and standard output goes to the command that started it.
    #[arg(long, hide = true)]
    tell: bool,
    #[command(flatten)]
    cache: CacheWords,
    #[command(flatten)]
    remote: RemoteWords,
}

/// The first word of a line that the daemon sends to the command that started it.
const LIVE: &str = "live";
const PROGRESS: &str = "progress";
const FAILED: &str = "failed";

impl Mount {
    /// Mounts; in the foreground, returns after the unmount. `arguments` are those that this command was read from.
    pub fn run(mut self, arguments: &[OsString]) -> Outcome {
        let options = self.options()?;
        if options.remount {
            return remount(&mount_point::canonical(&self.dir)?, &options);
        }
        self.store = self.store.with(&options.remote)?;
        if self.tell {
            return self.daemon(&options);
        }
        let dir = mount_point::prepare(&self.dir, options.nonempty)?;
        need_fuse()?;
        if options.flag("ro") {
            if !self.store.is_remote() || self.fake {
                follower::look(&self.store, &dir, &options)?;
            }
        } else if self.looks_first() {
            let found = self.look(&dir, &options)?;
            if found.is_none() && !self.fake {
                self.make()?;
            }
        }
        if self.fake {
            return Ok(());
        }
        if self.foreground { self.serve(&dir, &options, |_, _| (), |_| ()) } else { start(arguments) }
    }

    /// Whether the store is asked before the daemon starts, which asks it again: a remote one only if it must, for one that is away
    /// takes long to say so.
    fn looks_first(&self) -> bool {
        !self.store.is_memory() && (!self.store.is_remote() || self.create || self.fake)
    }

    fn make(&self) -> Outcome {
        mkfs::make(&self.store, mkfs::segment_bytes(self.segment_size)?, UsageLimit::default()).map(drop)
    }

    /// The words after `-o`, and those options of the command that have such a word; these win.
    fn options(&self) -> Result<MountOptions, Failure> {
        let mut options = MountOptions::parse(&self.options)?;
        options.remote.extend(&self.remote);
        options.cache.extend(&self.cache)?;
        options.state = self.state.clone().or(options.state);
        options.journal_bytes = self.journal_size.or(options.journal_bytes);
        options.grace_seconds = self.grace.or(options.grace_seconds);
        options.ship_interval_seconds = self.ship_interval.or(options.ship_interval_seconds);
        options.durability = self.durability.or(options.durability);
        options.when_full = self.when_full.or(options.when_full);
        options.read_timeout_seconds = self.read_timeout.or(options.read_timeout_seconds);
        options.metrics = self.metrics.clone().or(options.metrics);
        if self.read_only {
            options.flags.insert("ro", true);
        }
        options.takeover |= self.takeover;
        match nix::unistd::geteuid().is_root() {
            true => options.allow_other = true,
            // So it is with every mount of an ordinary user, whatever is asked.
            false => options.flags.extend([("nodev", true), ("nosuid", true)]),
        }
        Ok(options)
    }

    /// Whether a mount can succeed, as far as that can be seen before anything is touched. Nothing, when the filesystem is to be made.
    fn look(&self, dir: &Path, options: &MountOptions) -> Result<Option<Site>, Failure> {
        let given = options.state.as_deref();
        // What is in memory is new in each daemon, and needs no word for it.
        let makes = self.create || self.store.is_memory();
        let site = match self.store.look()? {
            Found::Nothing if makes => None,
            found => Some(Site::found(&self.store, found, given)?),
        };
        let state = match &site {
            Some(site) => Some(site.state.clone()),
            None => Site::state_of_new(&self.store, given)?,
        };
        options.cache.look(&self.store)?;
        mount_point::outside(dir, [self.store.folder(), state.as_deref(), options.cache.cache_dir.as_deref()])?;
        if let Some(site) = &site {
            site.same_as_before(&self.store)?;
        }
        let superblock = site.as_ref().map(|site| &site.superblock);
        if let Some(state) = state {
            state_dir::usable(&state, superblock.map(|superblock| superblock.uuid))
                .map_err(|failure| world::with_command(&self.store, given, failure))?;
        }
        let segment_bytes = self.segment_bytes(superblock)?;
        world::journal_bytes(segment_bytes, options.journal_bytes)?;
        Ok(site)
    }

    /// What [`Mount::look`] finds, or makes in memory.
    fn site(&self, dir: &Path, options: &MountOptions) -> Result<Site, Failure> {
        match self.look(dir, options)? {
            Some(site) => Ok(site),
            None => self.make().and_then(|()| Site::of(&self.store, options.state.as_deref())),
        }
    }

    /// The size of segments: the filesystem's, or that of the one to be made.
    fn segment_bytes(&self, superblock: Option<&Superblock>) -> Result<u64, Failure> {
        let Some(superblock) = superblock else { return mkfs::segment_bytes(self.segment_size) };
        match self.segment_size {
            Some(asked) if asked != superblock.segment_size => Err(Failure::usage(format_args!(
                "--segment-size is for making a filesystem; {} has one with segments of {}",
                self.store.url(),
                size::show(superblock.segment_size)
            ))),
            _ => Ok(superblock.segment_size),
        }
    }

    /// The daemon's part: everything it has to say before the mount is live goes through the pipe.
    fn daemon(&self, options: &MountOptions) -> Outcome {
        daemon::detach();
        let dir = mount_point::canonical(&self.dir)?;
        let progress = |done, total| tell(&format!("{PROGRESS} {done} {total}"));
        let is_live = Cell::new(false);
        let live = |state: &Path| {
            // No folder is kept busy for having been the user's when the mount began.
            nix::unistd::chdir("/").ok();
            tell(LIVE);
            log_file::take_over(state);
            is_live.set(true);
        };
        self.serve(&dir, options, progress, live).map_err(|failure| {
            match is_live.get() {
                true => log::error!("{}", failure.sentence()),
                false => tell(&format!("{FAILED} {}", failure.to_line())),
            }
            failure.said()
        })
    }

    fn serve(
        &self,
        dir: &Path,
        options: &MountOptions,
        progress: impl FnMut(u64, u64),
        live: impl FnOnce(&Path),
    ) -> Outcome {
        daemon::hold_signals();
        log_file::start();
        daemon::keep_secrets();
        if options.flag("ro") {
            return follower::serve(&self.store, dir, options, live);
        }
        let site = self.site(dir, options)?;
        if let Some(reason) = &site.away {
            let state = site.state.display();
            output::note(format_args!("skylog: {reason}; mounting from the local state in {state}"));
        }
        let state = site.state.clone();
        let patience = registry::patience(dir);
        let claim = Claim::on(dir, patience)?;
        mount_point::free(dir)?;
        let endpoint = options.metrics.as_ref().map(Endpoint::bind).transpose()?;
        let made = matches!(state.try_exists(), Ok(false));
        let lock = world::lock(&self.store, Some(&state), &dir.display().to_string(), patience)?;
        state_root::close_to_others(&state);
        // Looked at under the lock, and before anything is put there.
        let is_new = state_dir::is_new(&state);
        let opened = site.record(&self.store).and_then(|()| self.open(dir, &site, options, progress));
        let (volume, cache_lock) = opened.inspect_err(|_| {
            if is_new {
                state_dir::abandon(&state, made);
            }
        })?;
        let config = options.config(dir, &self.store);
        let (dir, store, pid) = (dir.to_path_buf(), self.store.url(), std::process::id());
        let registration = Registration { dir, store, state, pid, options: options.clone(), follows: false };
        let ended = daemon::serve(volume, registration, &config, endpoint, || live(&site.state));
        drop((cache_lock, lock, claim));
        ended
    }

    /// Why the volume does not open, with the command to run.
    fn refused(&self, error: &MountError, dir: &Path, state: &Path, given: Option<&Path>) -> Failure {
        let takeover = format!("--takeover {} {}", self.store.shown(), dir.display());
        world::refused(&self.store, given, error)
            .saying("--takeover STORE DIR", &takeover)
            .saying("skylog salvage STATE", &format!("skylog salvage {}", state.display()))
    }

    /// A store that is away, or went away meanwhile, is probed when it is back, before anything is published.
    fn probe(&self, site: &Site) -> Outcome {
        if site.away.is_some() {
            return Ok(());
        }
        world::probe(&self.store).or_else(|failure| match self.store.look() {
            Ok(Found::Away(_)) => Ok(()),
            _ => Err(failure),
        })
    }

    /// Recovers and starts the volume. The lock is that of a folder of cache files of their own.
    fn open(
        &self,
        dir: &Path,
        site: &Site,
        options: &MountOptions,
        progress: impl FnMut(u64, u64),
    ) -> Result<(Arc<Volume>, Option<LockGuard>), Failure> {
        let grace = options.grace_seconds.map(Duration::from_secs);
        let ship_interval = options.ship_interval_seconds.map(Duration::from_secs);
        let uploads = self.store.uploads();
        let sizes = Sizes { journal_bytes: options.journal_bytes, grace, ship_interval, uploads };
        let owner = Owner::this_process(&dir.display().to_string()).map_err(Failure::failed)?;
        let cache = options.cache.place(&self.store, site.superblock.uuid, &site.state, &owner)?;
        let tuning = world::tuning(&site.superblock, sizes, owner)?;
        let owner = Owner::seen_anywhere(&dir.display().to_string()).map_err(Failure::failed)?;
        let holding = if options.takeover { Holding::TakesOver } else { Holding::Asks };
        let tuning = Tuning { cache_files: cache.limits, owner, holding, ..tuning };
        let superblock = site.superblock.clone();
        let known = Some(match &site.away {
            None => Known::Answered(superblock),
            Some(reason) => Known::Away(superblock, reason.clone()),
        });
        let world = World { known, cache_media: cache.media, ..world::world(&self.store, &site.state)? };
        self.probe(site)?;
        let (mut progress, mut effort) = (progress, Effort::new("replaying"));
        let mut progress = |done, total| {
            effort.at(done, total);
            progress(done, total);
        };
        let given = options.state.as_deref();
        let volume =
            Volume::open(&world, &tuning, &mut progress).map_err(|e| self.refused(&e, dir, &site.state, given))?;
        if let Some(policy) = options.sync {
            volume.set_policy(policy);
        }
        volume.set_durability(options.durability.unwrap_or_default());
        let usual = Patience::default();
        volume.set_patience(Patience {
            when_full: options.when_full.unwrap_or(usual.when_full),
            read_timeout: options.read_timeout_seconds.map_or(usual.read_timeout, Duration::from_secs),
        });
        Ok((volume, cache.lock))
    }
}

/// Starts the command of these arguments again as the daemon and listens until it is live.
fn start(arguments: &[OsString]) -> Outcome {
    let mut daemon = Command::new("/proc/self/exe")
        .arg0("skylog")
        .args([arguments.get(1).map_or("mount".as_ref(), OsString::as_os_str), "--tell".as_ref()])
        .args(arguments.iter().skip(2))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Failure::failed(format_args!("the daemon cannot be started: {e}")))?;
    let said = BufReader::new(daemon.stdout.take().expect("it is piped"));
    let progress = Progress::bytes("replaying");
    for line in said.lines().map_while(Result::ok) {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            LIVE => return Ok(()),
            FAILED => return Err(Failure::from_line(rest)),
            PROGRESS => show(&progress, rest),
            _ => {}
        }
    }
    Err(Failure::failed("the daemon ended before the mount was live; what it said last is above or in skylog.log"))
}

fn show(progress: &Progress, numbers: &str) {
    let mut numbers = numbers.split(' ').map(str::parse);
    if let (Some(Ok(done)), Some(Ok(total))) = (numbers.next(), numbers.next()) {
        progress.at(done, total);
    }
}

/// A line for the command that started the daemon; it may have been interrupted and gone.
fn tell(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

fn need_fuse() -> Outcome {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Failure::failed(
            "this machine has no /dev/fuse; `modprobe fuse` brings it, a container needs it handed in",
        )),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(Failure::failed(
            "/dev/fuse is closed to ordinary users on this machine; `chmod 666 /dev/fuse` by root opens it",
        )),
        Err(e) => Err(Failure::failed(format_args!("/dev/fuse cannot be used: {e}"))),
    }
}
