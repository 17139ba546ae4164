//! The daemon of one mount: serves until the mount is gone, however it went, then ships what is left and ends.
//!
//! Threads: the main thread waits for the end of the session; `control` accepts commands, each served by a thread of its own;
//! `signals` turns SIGTERM, SIGINT and SIGHUP into an unmount. Order at the end: the mount goes, the registration goes, the
//! volume is closed, whoever asked for the end is told, the process exits.

use super::control::{self, Ask, Say};
use super::failure::{Failure, Outcome};
use super::metrics_endpoint::Endpoint;
use super::mount_point::Holder;
use super::notify::{self, Effort};
use super::registry::Registration;
use super::{copies, metrics, mount_point, size, status, utab};
use nix::sys::signal::{SigSet, Signal};
use parking_lot::{Condvar, Mutex};
use skylog::fs::SetLimit;
use skylog::fuse::{self, MountConfig, Requests, Unwritten};
use skylog::volume::Volume;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long the end waits for those who asked for it to hear of it.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long the end goes on shipping without progress once a signal has asked for it: the system may be going down, and gives
/// services a minute and a half.
const LAST_EFFORT: Duration = Duration::from_secs(30);

/// How long the end waits for the store to hear that nobody holds the filesystem any more.
const RELEASE_MAX: Duration = Duration::from_secs(10);

/// How long those may take to close their files who waited inside the mount and were answered.
const LET_GO: Duration = Duration::from_secs(2);

/// How long an unmount waits for the end without a word about who holds it up.
const PATIENCE: Duration = Duration::from_secs(3);

/// Blocks the signals that end the daemon, for this thread and all it starts. To be called before the first thread starts.
pub fn hold_signals() {
    if let Err(e) = signals().thread_block() {
        log::warn!("signals are not held back: {e}");
    }
}

/// What is in memory, keys to a store and contents of files, is in no core file, and no other process of this user looks at it.
/// Root may: a debugger of root's works as before. A limit on the size of core files would not do, for a program that core
/// files are piped into is not bound by it.
pub fn keep_secrets() {
    if let Err(e) = nix::sys::prctl::set_dumpable(false) {
        log::warn!("what is in memory may be in a core file: {e}");
    }
}

/// Leaves the terminal, and what the starting process had open: nobody else is kept waiting for their end.
pub fn detach() {
    nix::unistd::setsid().ok();
    // Started through a link, the kernel would call this process by the link's name.
    nix::sys::prctl::set_name(c"skylog").ok();
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().filter_map(Result::ok);
    let open: Vec<i32> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // One of them was the listing itself, which is closed already.
        nix::unistd::close(fd).ok();
    }
}

fn signals() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

struct Daemon {
    volume: Arc<Volume>,
    requests: Arc<Requests>,
    unwritten: Unwritten,
    registration: Registration,
    /// Where metrics are served, if they are.
    metrics: Option<String>,
    ending: Ending,
    /// The user asked to leave in the journal what is not shipped yet.
    now: AtomicBool,
    /// A signal asked for the end.
    signalled: AtomicBool,
    /// No mount of it is left anywhere.
    session_over: AtomicBool,
}

/// Serves the volume until it is unmounted. `live` is called once the mount answers.
pub fn serve(
    volume: Arc<Volume>,
    registration: Registration,
    config: &MountConfig,
    endpoint: Option<Endpoint>,
    live: impl FnOnce(),
) -> Outcome {
    let mounted = fuse::mount(volume.clone(), config).map_err(|e| not_mounted(&e, config))?;
    let daemon = Arc::new(Daemon {
        volume,
        requests: mounted.requests(),
        unwritten: mounted.unwritten(),
        registration,
        metrics: endpoint.as_ref().map(|endpoint| endpoint.address().to_string()),
        ending: Ending::default(),
        now: AtomicBool::new(false),
        signalled: AtomicBool::new(false),
        session_over: AtomicBool::new(false),
    });
    if let Err(e) = daemon.clone().listen(endpoint.as_ref()) {
        mount_point::detach(&config.dir).ok();
        return Err(Failure::failed(format_args!("the control socket cannot be made, or a thread: {e}")));
    }
    utab::enter(&config.dir, &config.source);
    live();
    notify::ready(&format!("mounted on {}", config.dir.display()));
    if let Err(e) = mounted.wait() {
        log::error!("the session ended: {e}");
    }
    daemon.session_over.store(true, Ordering::Release);
    notify::stopping("unmounted");
    utab::leave(&config.dir);
    daemon.registration.remove();
    let end = daemon.close();
    daemon.ending.announce(end.clone());
    match end.map_err(Failure::failed)? {
        End { unshipped_bytes, fenced: Some(why) } if !daemon.now.load(Ordering::Relaxed) => {
            Err(Failure::failed(stays_for_ever(unshipped_bytes, &daemon.registration.state, &why)))
        }
        _ => Ok(()),
    }
}

/// What becomes of a journal that no mount ships any more.
pub fn stays_for_ever(unshipped_bytes: u64, state: &Path, why: &str) -> String {
    let state = state.display();
    format!(
        "{} stay in the journal ({unshipped_bytes} bytes) in {state}, and no mount ships them: {why}; to write them out as files, \
         run: skylog salvage {state} OUT",
        size::show(unshipped_bytes)
    )
}

impl Daemon {
    /// Opens the socket, registers, and starts the threads that listen and those that answer.
    fn listen(self: Arc<Self>, endpoint: Option<&Endpoint>) -> io::Result<()> {
        let socket = self.registration.socket()?;
        std::fs::remove_file(&socket).ok();
        let listener = UnixListener::bind(&socket)?;
        self.registration.write()?;
        let on_signal = self.clone();
        spawn("signals", move || on_signal.heed_signals())?;
        if let Some(endpoint) = endpoint {
            let (volume, requests) = (self.volume.clone(), self.requests.clone());
            endpoint.serve(move || metrics::text(&volume, &requests))?;
        }
        spawn("control", move || self.accept(&listener)).map(drop)
    }

    fn accept(self: &Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming().filter_map(Result::ok) {
            let daemon = self.clone();
            if let Err(e) = spawn("command", move || daemon.converse(&stream)) {
                log::error!("a command cannot be served: {e}");
            }
        }
    }

    fn converse(&self, stream: &UnixStream) {
        let said = match control::receive(stream) {
            Ok(Ask::Umount { now }) => return self.umount(stream, now),
            Ok(Ask::Status) => self.status(),
            Ok(Ask::Metrics) => Say::Metrics { text: metrics::text(&self.volume, &self.requests) },
            Ok(Ask::Warm { inodes }) => copies::warm(&self.volume, &self.registration.dir, stream, &inodes),
            Ok(Ask::Evict { inodes }) => {
                copies::evict(&self.volume, &self.registration.dir, &self.unwritten, stream, &inodes)
            }
            Ok(ask) if self.volume.is_follower() && ask.is_for_a_writer() => Say::Failed {
                why: format!(
                    "{} follows a mount that writes and changes nothing; run this where the filesystem is mounted without ro",
                    self.registration.dir.display()
                ),
            },
            Ok(Ask::Sync) => self.sync(),
            Ok(Ask::Set { sync }) => self.set(&sync),
            Ok(Ask::Durability { word }) => done(word.parse().map(|durability| self.volume.set_durability(durability))),
            Ok(Ask::ShipInterval { seconds }) => {
                self.volume.set_ship_interval(Duration::from_secs(seconds));
                done(Ok(()))
            }
            Ok(Ask::WhenFull { word }) => done(word.parse().map(|when_full| self.volume.set_when_full(when_full))),
            Ok(Ask::Limit { size, inodes, on_limit }) => self.set_limit(size, inodes, on_limit.as_deref()),
            Err(e) => Say::Failed { why: format!("the request makes no sense: {e}") },
        };
        // The other side may have gone; then nobody needs the answer.
        control::answer(stream, &said).ok();
    }

    fn status(&self) -> Say {
        let mut status = status::of(&self.volume);
        status["requests"] = serde_json::to_value(&*self.requests).expect("counts are plain data");
        if let Some(address) = &self.metrics {
            status["metrics"] = address.as_str().into();
        }
        Say::Status { status }
    }

    fn sync(&self) -> Say {
        let (tell, told) = mpsc::sync_channel(1);
        let volume = self.volume.clone();
        self.unwritten.written_back(move || volume.sync(move |synced| drop(tell.send(synced))));
        done(told.recv().unwrap_or_else(|_| Err("the volume is closing".into())))
    }

    fn set(&self, policy: &str) -> Say {
        match policy.parse() {
            Ok(policy) => {
                self.volume.set_policy(policy);
                done(Ok(()))
            }
            Err(why) => Say::Failed { why },
        }
    }

    fn set_limit(&self, bytes: Option<u64>, inodes: Option<u64>, on_limit: Option<&str>) -> Say {
        let on_limit = match on_limit.map(str::parse).transpose() {
            Ok(on_limit) => on_limit,
            Err(why) => return Say::Failed { why },
        };
        let (tell, told) = mpsc::sync_channel(1);
        self.volume.set_limit(SetLimit { bytes, inodes, on_limit }, move |set| drop(tell.send(set)));
        done(told.recv().unwrap_or_else(|_| Err("the volume is closing".into())))
    }

    /// Ships, unmounts, and tells how the end went. While the mount is in use nothing ends.
    fn umount(&self, stream: &UnixStream, now: bool) {
        let drained = if now { Ok(()) } else { self.drain(stream) };
        // What somebody else has taken over can do nothing but go, and what it has is kept in any case.
        let now = now || self.volume.fenced().is_some();
        if let Err(why) = drained.or_else(|why| if now { Ok(()) } else { Err(why) }) {
            log::info!("not unmounted: {why}");
            let why = format!("{why}; still mounted, `skylog umount --now` leaves in the journal what is not shipped");
            control::answer(stream, &Say::Failed { why }).ok();
            return;
        }
        self.now.store(now, Ordering::Relaxed);
        self.ending.listen();
        let dir = &self.registration.dir;
        let device = mount_point::mounted_at(dir).map(|line| line.device).unwrap_or_default();
        let said = match self.take_away(now) {
            Ok(()) => self.await_end(stream, &device),
            Err(e) => {
                // Whoever takes it away later has not said to leave anything in the journal.
                self.now.store(false, Ordering::Relaxed);
                Say::Failed { why: busy(dir, &e, now || self.volume.is_follower()) }
            }
        };
        control::answer(stream, &said).ok();
        self.ending.told();
    }

    /// Takes the mount away. In a hurry, those are answered first who wait inside it for room in the journal or for the store:
    /// the kernel does not let them go before, not even when they are killed.
    fn take_away(&self, now: bool) -> io::Result<()> {
        let dir = &self.registration.dir;
        if !now || !self.volume.has_waiting() {
            return mount_point::unmount(dir);
        }
        self.volume.set_leaving(true);
        let begun = Instant::now();
        loop {
            match mount_point::unmount(dir) {
                Ok(()) => return Ok(()),
                Err(_) if begun.elapsed() < LET_GO => thread::sleep(Duration::from_millis(20)),
                Err(e) => {
                    self.volume.set_leaving(false);
                    return Err(e);
                }
            }
        }
    }

    /// The mount is gone here. The session ends with the last copy of it: who has one is told, and waited for unless told to be
    /// quick. The daemon ends in either case when the last copy goes.
    fn await_end(&self, stream: &UnixStream, device: &str) -> Say {
        if let Some(said) = self.ending.wait_for(PATIENCE) {
            return said;
        }
        if !self.session_over.load(Ordering::Acquire) {
            let why = held(&self.registration.dir, mount_point::holder(device));
            log::warn!("{why}");
            if self.now.load(Ordering::Relaxed) {
                return Say::Failed { why };
            }
            control::answer(stream, &Say::Waiting { why: format!("{why}; waiting for that") }).ok();
        }
        self.ending.wait()
    }

    fn drain(&self, stream: &UnixStream) -> Result<(), String> {
        let mut effort = Effort::new("shipping");
        self.volume.drain(&mut |done, total| {
            effort.at(done, total);
            let waiting = self.volume.hindrance();
            // Whoever was interrupted while waiting does not want the unmount any more.
            control::answer(stream, &Say::Progress { done, total, waiting })
                .map_err(|_| "the command that asked for it has ended".to_owned())
        })
    }

    /// Called when the mount is gone: ships what came in last, unless told otherwise, and ends the volume.
    fn close(&self) -> Result<End, String> {
        let (mut effort, mut stall) = (Effort::new("shipping"), Stall::begin());
        let mut progress = |done, total| {
            effort.at(done, total);
            match stall.lasts(done) >= LAST_EFFORT && self.signalled.load(Ordering::Relaxed) {
                true => Err(self.volume.hindrance().unwrap_or_else(|| "nothing is shipped any more".to_owned())),
                false => Ok(()),
            }
        };
        let now = self.now.load(Ordering::Relaxed);
        match if now { Ok(()) } else { self.volume.drain(&mut progress) } {
            Ok(()) if now => {}
            Ok(()) => self.volume.release(RELEASE_MAX),
            Err(why) => log::error!("not everything is in the store, the journal keeps it: {why}"),
        }
        let unshipped_bytes = self.volume.status().unshipped_bytes;
        let fenced = self.volume.fenced();
        match (self.volume.close(), &fenced) {
            // The journal has failed, and that is no news.
            (Err(why), Some(_)) => log::error!("{why}"),
            (closed, _) => closed?,
        }
        Ok(End { unshipped_bytes, fenced })
    }

    /// The first signal unmounts, lazily if files are open, and answers who waits; the second ends the process as it is.
    fn heed_signals(&self) {
        let signals = signals();
        for asked in 0.. {
            match signals.wait() {
                Ok(signal) if asked == 0 => log::info!("{signal}: unmounting"),
                Ok(signal) => {
                    log::error!("{signal} again: ending without shipping; the next mount recovers all that was synced");
                    std::process::exit(1);
                }
                Err(e) => return log::error!("signals are not heard: {e}"),
            }
            self.signalled.store(true, Ordering::Relaxed);
            self.volume.set_leaving(true);
            if self.session_over.load(Ordering::Acquire) {
                continue;
            }
            let dir = &self.registration.dir;
            if let Err(e) = mount_point::unmount(dir).or_else(|_| mount_point::detach(dir)) {
                log::error!("{} cannot be unmounted: {e}", dir.display());
            }
        }
    }
}

/// How a volume ended.
#[derive(Clone)]
struct End {
    /// Bytes that stay in the journal.
    unshipped_bytes: u64,
    /// Why they will never be shipped, if another writer has taken over.
    fenced: Option<String>,
}

/// How long nothing has gone on.
struct Stall {
    done: u64,
    since: Instant,
}

impl Stall {
    fn begin() -> Stall {
        Stall { done: 0, since: Instant::now() }
    }

    fn lasts(&mut self, done: u64) -> Duration {
        if done > self.done {
            *self = Stall { done, since: Instant::now() };
        }
        self.since.elapsed()
    }
}

/// How the daemon ended, for those who asked it to.
#[derive(Default)]
struct Ending {
    state: Mutex<(Option<Say>, usize)>,
    changed: Condvar,
}

impl Ending {
    /// One more waits to be told.
    fn listen(&self) {
        self.state.lock().1 += 1;
    }

    fn wait(&self) -> Say {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |(said, _)| said.is_none());
        state.0.clone().expect("waited for it")
    }

    fn wait_for(&self, longest: Duration) -> Option<Say> {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |(said, _)| said.is_none(), longest);
        state.0.clone()
    }

    fn told(&self) {
        self.state.lock().1 -= 1;
        self.changed.notify_all();
    }

    /// Says how it ended and waits until all listeners have passed it on.
    fn announce(&self, end: Result<End, String>) {
        let mut state = self.state.lock();
        state.0 = Some(match end {
            Ok(End { unshipped_bytes, fenced }) => Say::Done { unshipped_bytes, fenced },
            Err(why) => Say::Failed { why },
        });
        self.changed.notify_all();
        self.changed.wait_while_for(&mut state, |(_, listening)| *listening > 0, LAST_WORDS);
    }
}

fn done(result: Result<(), String>) -> Say {
    match result {
        Ok(()) => Say::Done { unshipped_bytes: 0, fenced: None },
        Err(why) => Say::Failed { why },
    }
}

fn busy(dir: &std::path::Path, error: &io::Error, unshipped: bool) -> String {
    let users = mount_point::users(dir).join(", ");
    match users.is_empty() {
        true => format!("{} cannot be unmounted: {error}", dir.display()),
        false if unshipped => format!("{} is in use by {users}; close it and unmount again", dir.display()),
        false => format!("{} is in use by {users}; everything is shipped, close it and unmount again", dir.display()),
    }
}

fn held(dir: &std::path::Path, holder: Option<Holder>) -> String {
    let (dir, daemon) = (dir.display(), std::process::id());
    let by = match holder {
        Some(Holder { pid, name, dir }) => format!(
            "{name} in another mount namespace holds a copy, `nsenter -t {pid} -m umount -i -l {}` lets it go",
            dir.display()
        ),
        None => "something that cannot be seen from here, as another mount namespace, still holds it".to_owned(),
    };
    format!("{dir} is unmounted here, but the daemon (process {daemon}) cannot end yet: {by}")
}

fn not_mounted(error: &io::Error, config: &MountConfig) -> Failure {
    let (dir, said) = (config.dir.display(), error.to_string());
    // fusermount3 may say several things, each after its own name.
    let said: Vec<&str> = said.lines().map(|line| line.trim().trim_start_matches("fusermount3: ")).collect();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::failed("mounting as a user needs fusermount3; `apt-get install fuse3` by root brings it")
        }
        io::ErrorKind::PermissionDenied if config.allow_other => Failure::failed(
            "allow_other is refused to ordinary users here; root allows it by a line `user_allow_other` in /etc/fuse.conf",
        ),
        _ => Failure::failed(format_args!("{dir} cannot be mounted: {}", said.join("; "))),
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(body)
}
