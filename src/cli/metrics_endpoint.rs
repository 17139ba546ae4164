//! Where a mount serves its metrics: HTTP on a local port or on a unix socket, `GET /metrics` and nothing else.
//!
//! One thread answers one request after the other. A client has a few seconds to ask and to take the answer, so that one that
//! stands still keeps the others waiting no longer than that.

use super::failure::Failure;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

/// The longest that one read or write of a connection may stand still, and that all reads of a request may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest request with its header, bytes.
const REQUEST_BYTES_MAX: usize = 8192;
/// The pause after a connection could not be accepted, which is when this process has too much open.
const PAUSE: Duration = Duration::from_millis(100);

/// Where metrics are served, as the user says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A port; of this machine alone unless another address was given with it.
    Port(SocketAddr),
    /// A socket in the file system, for its owner alone.
    Socket(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:").map(Path::new).filter(|path| path.is_absolute()) {
            return Ok(Address::Socket(path.to_owned()));
        }
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let port = text.parse().map(local).or_else(|_| text.parse());
        port.map(Address::Port).map_err(|_| {
            format!("metrics={text}: give a port, as 9190, an address with a port, as 127.0.0.1:9190, or unix:/path")
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Port(address) => write!(f, "http://{address}/metrics"),
            Address::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

enum Listener {
    Port(TcpListener),
    Socket(UnixListener),
}

/// A port or socket that clients can connect to; its socket is removed when it is dropped.
pub struct Endpoint {
    listener: Listener,
    address: Address,
}

impl Endpoint {
    /// Takes the port, or makes the socket.
    pub fn bind(address: &Address) -> Result<Endpoint, Failure> {
        let bound = match address {
            Address::Port(port) => TcpListener::bind(port).and_then(|listener| {
                let address = Address::Port(listener.local_addr()?);
                Ok(Endpoint { listener: Listener::Port(listener), address })
            }),
            Address::Socket(path) => bind_socket(path)
                .map(|listener| Endpoint { listener: Listener::Socket(listener), address: address.clone() }),
        };
        bound.map_err(|e| Failure::failed(format_args!("metrics cannot be served on {address}: {e}")))
    }

    /// Where clients find it.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Starts the thread that answers with `text`; it ends with the process.
    pub fn serve(&self, text: impl Fn() -> String + Send + 'static) -> io::Result<()> {
        let listener = match &self.listener {
            Listener::Port(listener) => Listener::Port(listener.try_clone()?),
            Listener::Socket(listener) => Listener::Socket(listener.try_clone()?),
        };
        let thread = thread::Builder::new().name("metrics".into());
        thread.spawn(move || {
            loop {
                if let Err(e) = listener.serve_one(&text) {
                    log::debug!("metrics were not served: {e}");
                }
            }
        })?;
        Ok(())
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Address::Socket(path) = &self.address {
            std::fs::remove_file(path).ok();
        }
    }
}

/// A socket that nobody listens on any more was left by a daemon that was killed.
fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

impl Listener {
    fn serve_one(&self, text: &impl Fn() -> String) -> io::Result<()> {
        let pause = |_: &io::Error| thread::sleep(PAUSE);
        match self {
            Listener::Port(listener) => {
                let (stream, _) = listener.accept().inspect_err(pause)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                converse(&stream, text)
            }
            Listener::Socket(listener) => {
                let (stream, _) = listener.accept().inspect_err(pause)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                converse(&stream, text)
            }
        }
    }
}

/// Takes one request and answers it.
fn converse(mut stream: impl Read + Write, text: &impl Fn() -> String) -> io::Result<()> {
    let answer = match read_head(&mut stream)? {
        None => answer("431 Request Header Fields Too Large", "the request is too long\n"),
        Some(head) => respond(&head, text),
    };
    stream.write_all(answer.as_bytes())
}

/// A request up to the end of its header; `None` if it is too long.
fn read_head(stream: &mut impl Read) -> io::Result<Option<String>> {
    let (begin, mut head) = (Instant::now(), Vec::new());
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > REQUEST_BYTES_MAX {
            return Ok(None);
        }
        let n = stream.read(&mut piece)?;
        if n == 0 || begin.elapsed() > PATIENCE {
            return Err(io::Error::new(ErrorKind::TimedOut, "the request did not come to its end"));
        }
        head.extend_from_slice(&piece[..n]);
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

fn respond(head: &str, text: &impl Fn() -> String) -> String {
    let line = head.lines().next().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words[..] else { return answer("400 Bad Request", "this is no request\n") };
    let path = target.split('?').next().unwrap_or_default();
    match (method, path) {
        _ if !version.starts_with("HTTP/1.") => answer("505 HTTP Version Not Supported", "HTTP/1.1 is spoken here\n"),
        ("GET", "/metrics") => answer("200 OK", &text()),
        (_, "/metrics") => answer("405 Method Not Allowed\r\nAllow: GET", "only GET is answered\n"),
        _ => answer("404 Not Found", "there is only /metrics\n"),
    }
}

fn answer(status: &str, body: &str) -> String {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<String, String> {
        text.parse::<Address>().map(|address| address.to_string())
    }

    #[test]
    fn a_port_alone_is_one_of_this_machine() {
        assert_eq!(address("9190").unwrap(), "http://127.0.0.1:9190/metrics");
        assert_eq!(address("0.0.0.0:9190").unwrap(), "http://0.0.0.0:9190/metrics");
        assert_eq!(address("[::1]:9190").unwrap(), "http://[::1]:9190/metrics");
        assert_eq!(address("unix:/run/some").unwrap(), "unix:/run/some");
        for wrong in ["", "unix:some", "localhost", "99999", "127.0.0.1"] {
            assert!(address(wrong).unwrap_err().contains("give a port"), "{wrong}");
        }
    }

    #[test]
    fn only_metrics_are_answered() {
        let respond = |head: &str| respond(head, &|| "some 1\n".into());
        let said = respond("GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\nsome 1\n"), "{said}");
        assert!(said.contains("Content-Length: 7\r\n"), "{said}");
        for (head, status) in [
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("GET /metrics\r\n\r\n", "400"),
            ("GET /metrics HTTP/2\r\n\r\n", "505"),
            ("\r\n\r\n", "400"),
        ] {
            assert!(respond(head).starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}");
        }
    }

    #[test]
    fn a_request_without_an_end_is_refused() {
        let mut long = io::repeat(b'x');
        assert_eq!(read_head(&mut long).unwrap(), None);
        assert!(read_head(&mut &b"GET /metrics HTTP/1.1\r\n"[..]).is_err());
    }

    #[test]
    fn a_socket_that_was_left_is_made_anew_and_one_in_use_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let address = Address::Socket(path.clone());
        let endpoint = Endpoint::bind(&address).unwrap();
        let said = Endpoint::bind(&address).err().expect("it is in use");
        assert!(said.sentence().contains("in use"), "{}", said.sentence());
        drop(endpoint);
        assert!(!path.exists());
    }
}
