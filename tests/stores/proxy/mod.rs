//! A proxy between clients and an S3 server that makes the network and the store fail in every way they do, for a share of
//! requests, from a seed, switched while it runs. It also counts requests and bytes, and slows every request down alike.
//!
//! It knows HTTP/1.1 without TLS: bodies with a length or in chunks, connections that are kept. Each request is read whole,
//! then sent on, then its answer is read whole.

mod counts;
mod http;
mod plan;

pub use counts::Counts;
pub use plan::Plan;

use http::{Head, Message};
use plan::Fault;
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// No wait for the server or for a client that stalls is longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A proxy that runs until the process ends or it is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
}

struct Shared {
    address: SocketAddr,
    upstream: SocketAddr,
    seed: u64,
    drawn: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
    /// Bound and never listening: the port stays ours while nobody listens.
    _reserved: Socket,
}

#[derive(Default)]
struct State {
    plan: Plan,
    counts: Counts,
    /// Requests that the store has not got yet, of [`Fault::Late`].
    late: u64,
    /// Nobody listens, as the plan asked.
    deaf: bool,
    ended: bool,
}

type Buffered = BufReader<TcpStream>;

/// Why a connection is not used any more.
enum End {
    /// It ends in order.
    Close,
    /// It is reset.
    Reset,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Reset
    }
}

impl Proxy {
    /// Listens, on any free port if that is 0, and sends on to `upstream`.
    pub fn start(listen: SocketAddr, upstream: SocketAddr, seed: u64) -> io::Result<Proxy> {
        let reserved = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
        reserved.set_reuse_address(true)?;
        reserved.bind(&listen.into())?;
        let address = reserved.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let listener = TcpListener::bind(address)?;
        let (drawn, state, changed) = (AtomicU64::new(0), Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { address, upstream, seed, drawn, state, changed, _reserved: reserved });
        let accepting = shared.clone();
        thread::Builder::new().name("accept".into()).spawn(move || accepting.accept(listener))?;
        Ok(Proxy { shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// What happens from now on. Returns once nobody listens any more, or somebody does again, if that is the change.
    pub fn set(&self, plan: Plan) {
        let away = plan.is_away();
        self.shared.state().plan = plan;
        self.shared.changed.notify_all();
        // Wakes the thread that waits for a connection.
        TcpStream::connect(self.shared.address).ok();
        let mut state = self.shared.state();
        while state.deaf != away {
            state = self.shared.changed.wait(state).expect("no panic under the lock");
        }
    }

    pub fn counts(&self) -> Counts {
        self.shared.state().counts.clone()
    }

    /// Waits until the store has got all that was held back.
    pub fn settle(&self) {
        let mut state = self.shared.state();
        while state.late > 0 {
            state = self.shared.changed.wait(state).expect("no panic under the lock");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
        TcpStream::connect(self.shared.address).ok();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    fn accept(self: Arc<Shared>, listener: TcpListener) {
        let mut listener = Some(listener);
        loop {
            if self.state().ended {
                return;
            }
            if self.state().plan.is_away() {
                listener = None;
                let mut state = self.state();
                state.deaf = true;
                self.changed.notify_all();
                while state.plan.is_away() && !state.ended {
                    state = self.changed.wait(state).expect("no panic under the lock");
                }
                continue;
            }
            let open = match listener.take() {
                Some(open) => open,
                None => TcpListener::bind(self.address).expect("the port is reserved"),
            };
            self.state().deaf = false;
            self.changed.notify_all();
            if let Ok((client, _)) = open.accept() {
                let shared = self.clone();
                thread::spawn(move || shared.serve(client));
            }
            listener = Some(open);
        }
    }

    /// Answers the requests of one connection.
    fn serve(self: Arc<Shared>, client: TcpStream) {
        let mut upstream = None;
        client.set_nodelay(true).ok();
        let Ok(reader) = client.try_clone() else { return };
        let mut reader = BufReader::new(reader);
        let end = loop {
            if let Err(end) = self.exchange(&mut reader, &client, &mut upstream) {
                break end;
            }
        };
        if matches!(end, End::Reset) {
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).ok();
        }
    }

    fn number(&self) -> u64 {
        mix(self.seed ^ mix(self.drawn.fetch_add(1, Ordering::Relaxed)))
    }

    /// One request and its answer.
    fn exchange(
        self: &Arc<Shared>,
        reader: &mut Buffered,
        client: &TcpStream,
        upstream: &mut Option<Buffered>,
    ) -> Result<(), End> {
        let Some(mut head) = Head::read(reader)? else { return Err(End::Close) };
        let number = self.number();
        let plan = {
            let mut state = self.state();
            *state.counts.requests.entry(counts::kind(&head)).or_default() += 1;
            state.plan.clone()
        };
        let fault = plan.draw(number);
        if let Some(Fault::Refuse) = fault {
            self.happened(Fault::Refuse);
            return Err(End::Reset);
        }
        if head.has("expect", "100-continue") {
            head.remove("expect");
            (&*client).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if let (Some(Fault::CutRequest), Some(length @ 2..)) = (fault, head.length()?) {
            io::copy(&mut reader.take(length / 2), &mut io::sink())?;
            self.happened(Fault::CutRequest);
            return Err(End::Reset);
        }
        let body = head.body(reader, false)?;
        let mut request = Message { head, body };
        self.state().counts.bytes_up += request.len();
        thread::sleep(plan.latency);
        if plan.ignore_conditions {
            request.head.remove("if-none-match");
        }
        self.before(fault, number, &request, client)?;
        let mut answer = self.ask(&request, upstream)?;
        let cut = self.after(fault, number, &request, &mut answer)?;
        answer.head.remove("connection");
        self.state().counts.bytes_down += answer.len();
        *self.state().counts.answers.entry(answer.head.status()).or_default() += 1;
        answer.write(&mut &*client)?;
        match cut {
            Some(end) => Err(end),
            None if request.head.has("connection", "close") => Err(End::Close),
            None => Ok(()),
        }
    }

    fn happened(&self, fault: Fault) {
        *self.state().counts.injected.entry(fault.word()).or_default() += 1;
    }

    /// Faults that come before the store hears of the request.
    fn before(
        self: &Arc<Shared>,
        fault: Option<Fault>,
        number: u64,
        request: &Message,
        client: &TcpStream,
    ) -> Result<(), End> {
        let Some(fault) = fault else { return Ok(()) };
        let answer = match fault {
            Fault::Delay => {
                self.happened(fault);
                thread::sleep(Duration::from_millis((number >> 16) % 3000));
                return Ok(());
            }
            Fault::Stall => {
                self.happened(fault);
                self.stall(client);
                return Err(End::Reset);
            }
            Fault::Late if !["GET", "HEAD"].contains(&request.head.method()) => {
                self.happened(fault);
                self.send_late(request.clone(), Duration::from_millis(500 + (number >> 16) % 4000));
                return Err(End::Reset);
            }
            Fault::Internal => own_answer("500 Internal Server Error", "InternalError"),
            Fault::Unavailable => own_answer("503 Slow Down", "SlowDown"),
            Fault::TooMany => {
                let mut answer = own_answer("429 Too Many Requests", "TooManyRequests");
                if number & (1 << 20) != 0 {
                    answer.head.set("retry-after", 1);
                }
                answer
            }
            _ => return Ok(()),
        };
        self.happened(fault);
        *self.state().counts.answers.entry(answer.head.status()).or_default() += 1;
        answer.write(&mut &*client)?;
        Err(End::Close)
    }

    /// Faults of the answer; says how the connection is to end after it.
    fn after(
        &self,
        fault: Option<Fault>,
        number: u64,
        request: &Message,
        answer: &mut Message,
    ) -> Result<Option<End>, End> {
        let Some(fault) = fault else { return Ok(None) };
        let half = answer.body.len() / 2;
        // What a list or an error says is not checked by anything but TLS, and so is left alone.
        let object = counts::kind(&request.head) != "GET list" && [200, 206].contains(&answer.head.status());
        let end = match fault {
            Fault::Lost => {
                self.happened(fault);
                return Err(End::Reset);
            }
            Fault::CutAnswer if half > 0 => Some(End::Reset),
            Fault::Short if half > 0 => Some(End::Close),
            Fault::Lie if half > 0 && object => {
                answer.head.set("content-length", half);
                None
            }
            Fault::Flip if half > 0 && object => {
                let bit = (number >> 16) as usize % (answer.body.len() * 8);
                answer.body[bit / 8] ^= 1 << (bit % 8);
                self.happened(fault);
                return Ok(None);
            }
            _ => return Ok(None),
        };
        self.happened(fault);
        answer.body.truncate(half);
        Ok(end)
    }

    /// Says nothing until the client gives up, or the plan has no such fault any more.
    fn stall(&self, mut client: &TcpStream) {
        client.set_read_timeout(Some(Duration::from_millis(200))).ok();
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE && self.state().plan.faults.contains_key(&Fault::Stall) {
            match client.read(&mut [0]) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                _ => return,
            }
        }
    }

    fn send_late(self: &Arc<Shared>, request: Message, wait: Duration) {
        self.state().late += 1;
        let shared = self.clone();
        thread::spawn(move || {
            thread::sleep(wait);
            shared.ask(&request, &mut None).ok();
            shared.state().late -= 1;
            shared.changed.notify_all();
        });
    }

    /// The store's answer, over the connection that is kept if it still stands.
    fn ask(&self, request: &Message, kept: &mut Option<Buffered>) -> io::Result<Message> {
        let mut server = match kept.take().filter(|server| stands(server.get_ref())) {
            Some(server) => server,
            None => {
                let server = TcpStream::connect(self.upstream)?;
                server.set_nodelay(true)?;
                server.set_read_timeout(Some(PATIENCE))?;
                BufReader::new(server)
            }
        };
        request.write(&mut server.get_ref())?;
        let mut head = loop {
            let head = Head::read(&mut server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if head.status() >= 200 {
                break head;
            }
        };
        let bare = request.head.method() == "HEAD" || [204, 304].contains(&head.status());
        let unknown = !bare && head.length()?.is_none();
        let body = if bare { Vec::new() } else { head.body(&mut server, true)? };
        if !unknown && !head.has("connection", "close") {
            *kept = Some(server);
        }
        Ok(Message { head, body })
    }
}

/// Whether the other side has not closed a connection.
fn stands(server: &TcpStream) -> bool {
    server.set_nonblocking(true).ok();
    let alive = matches!(server.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
    server.set_nonblocking(false).is_ok() && alive
}

/// An error as S3 tells it.
fn own_answer(status: &str, code: &str) -> Message {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code></Error>").into_bytes();
    let mut head = Head::answer(status);
    head.set("content-type", "application/xml");
    head.set("connection", "close");
    head.set("content-length", body.len());
    Message { head, body }
}

/// A number that looks random, from one that does not.
fn mix(number: u64) -> u64 {
    let mut n = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
