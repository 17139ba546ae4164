//! The S3 server of these tests: moto, in memory, one for all tests of a run, a bucket for each.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Credentials that the server takes; it takes any.
pub const ACCESS_KEY: &str = "skylog";
pub const SECRET_KEY: &str = "loopback";
pub const REGION: &str = "us-east-1";

/// Ends the server when its standard input ends, which it does with this process, however that ends.
const UNTIL_INPUT_ENDS: &str = r#""$0" -H 127.0.0.1 -p 0 2>&1 & server=$!; cat > /dev/null; kill $server"#;

struct Server {
    address: SocketAddr,
    _process: Child,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static BUCKETS: AtomicUsize = AtomicUsize::new(0);

/// A fresh bucket, and where the server listens.
pub fn bucket() -> (SocketAddr, String) {
    let address = SERVER.get_or_init(Server::start).address;
    let name = format!("bucket-{}", BUCKETS.fetch_add(1, Ordering::Relaxed));
    let answer = request(address, "PUT", &format!("/{name}"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    (address, name)
}

/// Copies an object within a bucket.
pub fn copy(address: SocketAddr, bucket: &str, from: &str, to: &str) {
    let source = format!("x-amz-copy-source: /{bucket}/{from}\r\n");
    let answer = request_with(address, "PUT", &format!("/{bucket}/{to}"), &source);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// To delete, the server wants a signature, and looks at none.
const SIGNED: &str = "Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n";

/// The whole answer to a request without a body.
pub fn request(address: SocketAddr, method: &str, path: &str) -> String {
    request_with(address, method, path, SIGNED)
}

fn request_with(address: SocketAddr, method: &str, path: &str, header: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n{header}\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer of text");
    answer
}

impl Server {
    fn start() -> Server {
        let program = program();
        let mut command = Command::new("sh");
        command.args(["-c", UNTIL_INPUT_ENDS]).arg(&program).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("sh starts");
        let mut said = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut all = String::new();
        let address = loop {
            let begin = all.len();
            let n = said.read_line(&mut all).expect("it says where it listens");
            assert!(n > 0, "{}: {all}", program.display());
            if let Some((_, address)) = all[begin..].split_once("Running on http://") {
                break address.trim().parse().expect("an address");
            }
        };
        // It goes on to name every request; somebody has to read that.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Server { address, _process: process }
    }
}

/// moto as scripts/test installs it, else as the machine has it.
fn program() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/moto/bin/moto_server");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(own).chain(std::env::split_paths(&path).map(|folder| folder.join("moto_server")));
    all.into_iter().find(|file| file.exists()).expect("moto_server is missing; scripts/test installs it")
}
