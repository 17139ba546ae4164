//! A small S3 for tests, in this process: keeps objects in memory, answers as told, and notes what it was asked.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use url::form_urlencoded;

/// Its bucket.
pub const BUCKET: &str = "bucket";
/// Names on a page.
const PAGE: usize = 7;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// This status and body instead of what was asked.
    Status(u16, &'static str),
    /// No answer at all; the connection stays.
    Silence,
    /// It is done, and the connection closed without an answer.
    AnswerLost,
    /// Half of the answer's body, then the connection is closed.
    Cut,
    /// Half of the answer's body, as if that were all.
    Short,
    /// Nothing goes wrong.
    None,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    headers: BTreeMap<String, String>,
    body: Bytes,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn words(&self) -> BTreeMap<String, String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    fn name(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        path.trim_start_matches('/').trim_start_matches(BUCKET).trim_start_matches('/').replace("%2F", "/")
    }
}

#[derive(Default)]
struct State {
    objects: Mutex<BTreeMap<String, Bytes>>,
    parts: Mutex<BTreeMap<String, BTreeMap<u32, Bytes>>>,
    faults: Mutex<VecDeque<Fault>>,
    asked: Mutex<Vec<Asked>>,
    ignores_conditions: AtomicBool,
    version: AtomicU64,
    closing: AtomicBool,
}

/// The server; it ends when it is dropped.
pub struct Server {
    url: String,
    state: Arc<State>,
}

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.closing.load(Ordering::Relaxed) {
                    return;
                }
                let state = shared.clone();
                thread::spawn(move || state.serve(&stream));
            }
        });
        Server { url, state }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// What goes wrong with the next requests, one after the other.
    pub fn fail(&self, faults: &[Fault]) {
        self.state.faults.lock().extend(faults);
    }

    /// It makes every object that it is asked to create.
    pub fn ignore_conditions(&self) {
        self.state.ignores_conditions.store(true, Ordering::Relaxed);
    }

    /// All requests since the last look.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.asked.lock())
    }

    pub fn object(&self, name: &str) -> Option<Bytes> {
        self.state.objects.lock().get(name).cloned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

/// Status, headers beside the length, body.
struct Reply(u16, String, Bytes);

impl Reply {
    fn plain(status: u16) -> Reply {
        Reply(status, String::new(), Bytes::new())
    }

    fn xml(status: u16, text: String) -> Reply {
        Reply(status, "Content-Type: application/xml\r\n".into(), text.into())
    }

    fn error(status: u16, code: &str) -> Reply {
        Reply::xml(status, format!("<Error><Code>{code}</Code><Message>The server says so.</Message></Error>"))
    }
}

impl State {
    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Ok(Some(asked)) = read(&mut reader) {
            self.asked.lock().push(asked.clone());
            let fault = self.faults.lock().pop_front().unwrap_or(Fault::None);
            let is_head = asked.method == "HEAD";
            let sent = match fault {
                Fault::Status(status, body) => send(stream, &Reply::xml(status, body.into()), is_head, None),
                // Until the other side gives up.
                Fault::Silence => io::copy(&mut reader, &mut io::sink()).and(Err(io::ErrorKind::TimedOut.into())),
                Fault::AnswerLost => {
                    self.answer(&asked);
                    Err(io::ErrorKind::ConnectionReset.into())
                }
                Fault::Cut => {
                    send(stream, &self.answer(&asked), is_head, Some(())).and(Err(io::ErrorKind::BrokenPipe.into()))
                }
                Fault::Short => {
                    let Reply(status, headers, body) = self.answer(&asked);
                    send(stream, &Reply(status, headers, body.slice(..body.len() / 2)), is_head, None)
                }
                Fault::None => send(stream, &self.answer(&asked), is_head, None),
            };
            if sent.is_err() {
                break;
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }

    fn answer(&self, asked: &Asked) -> Reply {
        let (name, words) = (asked.name(), asked.words());
        match (asked.method.as_str(), words.get("uploadId")) {
            ("GET", _) if words.contains_key("list-type") => self.list(&words),
            ("GET" | "HEAD", _) => self.get(asked, &name),
            ("PUT", Some(upload)) => self.part(upload, &words["partNumber"], asked.body.clone()),
            ("PUT", None) => self.put(asked, name),
            ("POST", None) => self.begin(),
            ("POST", Some(upload)) => self.complete(upload, name),
            ("DELETE", Some(upload)) => {
                self.parts.lock().remove(upload);
                Reply::plain(204)
            }
            _ => {
                self.objects.lock().remove(&name);
                Reply::plain(204)
            }
        }
    }

    fn get(&self, asked: &Asked, name: &str) -> Reply {
        let Some(bytes) = self.object(name) else { return Reply::error(404, "NoSuchKey") };
        let about = "ETag: \"e\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
        let Some(range) = asked.header("range") else { return Reply(200, about.into(), bytes) };
        let (from, to) = range.trim_start_matches("bytes=").split_once('-').expect("a range");
        let (from, to): (usize, usize) = (from.parse().expect("a number"), to.parse().expect("a number"));
        if from >= bytes.len() {
            return Reply::error(416, "InvalidRange");
        }
        let end = bytes.len().min(to + 1);
        let about = format!("{about}Content-Range: bytes {from}-{}/{}\r\n", end - 1, bytes.len());
        Reply(206, about, bytes.slice(from..end))
    }

    fn object(&self, name: &str) -> Option<Bytes> {
        self.objects.lock().get(name).cloned()
    }

    fn put(&self, asked: &Asked, name: String) -> Reply {
        let mut objects = self.objects.lock();
        let only_new = asked.header("if-none-match") == Some("*") && !self.ignores_conditions.load(Ordering::Relaxed);
        if only_new && objects.contains_key(&name) {
            return Reply::error(412, "PreconditionFailed");
        }
        objects.insert(name, asked.body.clone());
        Reply(200, "ETag: \"e\"\r\n".into(), Bytes::new())
    }

    fn begin(&self) -> Reply {
        let upload = format!("upload{}", self.version.fetch_add(1, Ordering::Relaxed));
        self.parts.lock().insert(upload.clone(), BTreeMap::new());
        let text =
            format!("<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>");
        Reply::xml(200, text)
    }

    fn part(&self, upload: &str, number: &str, bytes: Bytes) -> Reply {
        match self.parts.lock().get_mut(upload) {
            None => Reply::error(404, "NoSuchUpload"),
            Some(parts) => {
                parts.insert(number.parse().expect("a number"), bytes);
                Reply(200, "ETag: \"p\"\r\n".into(), Bytes::new())
            }
        }
    }

    fn complete(&self, upload: &str, name: String) -> Reply {
        let Some(parts) = self.parts.lock().remove(upload) else { return Reply::error(404, "NoSuchUpload") };
        let whole: Vec<u8> = parts.into_values().flatten().collect();
        self.objects.lock().insert(name, whole.into());
        Reply::xml(200, "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>".into())
    }

    fn list(&self, words: &BTreeMap<String, String>) -> Reply {
        let (prefix, empty) = (words.get("prefix").cloned().unwrap_or_default(), String::new());
        let after = words.get("continuation-token").unwrap_or(&empty);
        let objects = self.objects.lock();
        let mut found = objects.iter().filter(|(name, _)| name.starts_with(&prefix) && *name > after);
        let page: Vec<_> = found.by_ref().take(PAGE).collect();
        let next = found.next().and(page.last()).map(|(name, _)| (*name).clone());
        let contents: String = page
            .iter()
            .map(|(name, bytes)| {
                format!(
                    "<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                     <ETag>\"e\"</ETag><Size>{}</Size></Contents>",
                    bytes.len()
                )
            })
            .collect();
        let more =
            next.map(|next| format!("<NextContinuationToken>{next}</NextContinuationToken>")).unwrap_or_default();
        Reply::xml(200, format!("<ListBucketResult>{more}{contents}</ListBucketResult>"))
    }
}

/// The next request, unless the connection ends.
fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let len = headers.get("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    Ok(Some(Asked { method, target, headers, body: body.into() }))
}

fn send(mut stream: &TcpStream, reply: &Reply, is_head: bool, cut: Option<()>) -> io::Result<()> {
    let Reply(status, headers, body) = reply;
    let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    let sent = if cut.is_some() { &body[..body.len() / 2] } else { body };
    if is_head { Ok(()) } else { stream.write_all(sent) }
}
