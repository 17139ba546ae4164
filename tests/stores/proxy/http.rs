//! HTTP/1.1 messages, as much as a proxy needs: a head, and a body whose end is known by its length, by chunks, or by the
//! end of the connection.

use std::io::{self, BufRead, Read, Write};

/// No head is longer.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The first line and the headers of a request or an answer.
#[derive(Clone, Debug)]
pub struct Head {
    /// `PUT /path HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub first: String,
    headers: Vec<(String, String)>,
}

/// A whole message; the body is not chunked.
#[derive(Clone, Debug)]
pub struct Message {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Head {
    /// An answer of ours.
    pub fn answer(status: &str) -> Head {
        Head { first: format!("HTTP/1.1 {status}"), headers: Vec::new() }
    }

    /// Reads a head; `None` when the connection ended before it began.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        let mut from = from.take(HEAD_BYTES_MAX as u64);
        let Some(first) = line(&mut from)? else { return Ok(None) };
        let mut headers = Vec::new();
        loop {
            let text = line(&mut from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if text.is_empty() {
                return Ok(Some(Head { first, headers }));
            }
            let (name, value) = text.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
    }

    /// The value of a header, whose name is given in small letters.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// Whether a header names a word, such as `close` in `connection`.
    pub fn has(&self, name: &str, word: &str) -> bool {
        self.get(name).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    }

    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.remove(name);
        self.headers.push((name.to_string(), value.to_string()));
    }

    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(have, _)| have != name);
    }

    /// The first word of a request.
    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    /// Path and query of a request.
    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    /// The number of an answer.
    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str("\r\n");
        out.into_bytes()
    }

    /// How many bytes of body the head announces; `None` when it does not say.
    pub fn length(&self) -> io::Result<Option<u64>> {
        self.get("content-length").map(|text| text.parse().map_err(|_| io::ErrorKind::InvalidData.into())).transpose()
    }

    /// Reads the body of a request, or of an answer that has one: a body of no known length ends with the connection.
    pub fn body(&mut self, from: &mut impl BufRead, until_end: bool) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if self.has("transfer-encoding", "chunked") {
            while let Some(chunk) = chunk(from)? {
                body.extend_from_slice(&chunk);
            }
            // From here on the length says it.
            self.remove("transfer-encoding");
            self.remove("trailer");
            self.set("content-length", body.len());
        } else if let Some(length) = self.length()? {
            from.take(length).read_to_end(&mut body)?;
            if (body.len() as u64) < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        } else if until_end {
            from.read_to_end(&mut body)?;
            self.set("content-length", body.len());
        }
        Ok(body)
    }
}

impl Message {
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.head.bytes())?;
        to.write_all(&self.body)
    }

    /// Bytes on the wire.
    pub fn len(&self) -> u64 {
        (self.head.bytes().len() + self.body.len()) as u64
    }
}

/// A line without its end; `None` at the end of the connection.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    from.read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map(Some).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The next chunk; `None` after the last, whose trailers are read and dropped.
fn chunk(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let size = line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let digits = size.split(';').next().unwrap_or_default().trim();
    let size = u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
    if size == 0 {
        while line(from)?.is_some_and(|trailer| !trailer.is_empty()) {}
        return Ok(None);
    }
    let mut bytes = Vec::new();
    from.take(size).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == size && line(from)?.is_some_and(|rest| rest.is_empty()) {
        true => Ok(Some(bytes)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
