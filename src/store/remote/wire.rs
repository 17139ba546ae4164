//! Every request on the wire goes through here, also those for keys: counted, timed, at the pace that is allowed, and given up
//! when nothing moves. Whether it is tried again is for the client above.

use super::RemoteOptions;
use super::body::{Received, Request, Sent};
use super::call::Call;
use super::pace::Pace;
use super::words::{deepest, one_line, words_of};
use crate::base::clock::Clock;
use crate::store::counters::{FailureKind, RequestKind, StoreCounters};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientConfigKey, Error};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Servers close idle connections; ours go first, so that no request is sent into a closing one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// What the system may still hold of a body when all of it was handed over,
const UNSENT_BYTES_MAX: u64 = 1 << 20;
/// and what a slow line takes of it each second.
pub const SLOW_BYTES_PER_SECOND: u64 = 16 << 10;
/// Who says no says so in fewer bytes.
const WORDS_BYTES_MAX: usize = 64 << 10;

/// What the requests of one store share.
pub struct Wire {
    pub counters: Arc<StoreCounters>,
    pub clock: Arc<dyn Clock>,
    pub up: Arc<Pace>,
    pub down: Arc<Pace>,
    /// No byte for that long is a failure.
    pub silence_max: Duration,
    /// A file of certificates to trust beside those of the system.
    pub trust: Option<String>,
}

impl Wire {
    pub fn new(clock: Arc<dyn Clock>, options: &RemoteOptions, trust: Option<String>) -> Arc<Wire> {
        let pace = |limit| Arc::new(Pace::new(clock.clone(), limit));
        Arc::new(Wire {
            counters: Arc::default(),
            up: pace(options.upload_bytes_per_second),
            down: pace(options.download_bytes_per_second),
            clock,
            silence_max: options.request_timeout,
            trust,
        })
    }
}

/// Makes the clients of a store; each goes over the same wire.
#[derive(Clone)]
pub struct Connector(pub Arc<Wire>);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient, Error> {
        let generic = |source| Error::Generic { store: "HTTP client", source };
        let client = client(options, &self.0).map_err(generic)?;
        Ok(HttpClient::new(Line { client, wire: self.0.clone() }))
    }
}

/// HTTP/1.1, since many connections carry more than many streams of one.
fn client(options: &ClientOptions, wire: &Wire) -> Result<reqwest::Client, Box<dyn std::error::Error + Send + Sync>> {
    let said = |key: ClientConfigKey| options.get_config_value(&key).filter(|value| !value.is_empty());
    let is_on = |key| said(key).is_some_and(|value| value == "true");
    // The client shows whole seconds with their unit.
    let digits = |value: String| value.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    let connect = said(ClientConfigKey::ConnectTimeout).and_then(digits).unwrap_or(5);
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("skylog/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .https_only(!is_on(ClientConfigKey::AllowHttp))
        .connect_timeout(Duration::from_secs(connect))
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_user_timeout(wire.silence_max)
        .tls_danger_accept_invalid_certs(is_on(ClientConfigKey::AllowInvalidCertificates));
    if let Some(proxy) = said(ClientConfigKey::ProxyUrl) {
        builder = builder.proxy(reqwest::Proxy::all(proxy)?);
    }
    // As the AWS tools have it; those the system trusts count too, and SSL_CERT_FILE says where those are.
    if let Some(bundle) = &wire.trust {
        let read = std::fs::read(bundle).map_err(|e| format!("AWS_CA_BUNDLE {bundle} cannot be read: {e}"))?;
        builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&read)?);
    }
    Ok(builder.build()?)
}

/// One client's way to the wire.
struct Line {
    client: reqwest::Client,
    wire: Arc<Wire>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

impl HttpService for Line {
    fn call<'a, 'f>(&'a self, request: HttpRequest) -> BoxFuture<'f, Result<HttpResponse, HttpError>>
    where
        'a: 'f,
        Self: 'f,
    {
        Box::pin(self.exchange(request))
    }
}

impl Line {
    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let uri = head.uri.to_string();
        let kind = kind_of(&head.method, &uri);
        let call = Call::current();
        let is_retry = call.as_ref().is_some_and(|call| call.asks(format!("{} {uri}", head.method)));
        let request = Request::begin(&self.wire, call, kind, is_retry, head.uri.host().unwrap_or_default().into());

        let url = uri.parse().map_err(|e| HttpError::new(HttpErrorKind::Unknown, BadUrl(format!("{e}"))))?;
        let mut outgoing = reqwest::Request::new(head.method, url);
        *outgoing.headers_mut() = head.headers;
        let bytes = body.content_length() as u64;
        let handed = Arc::new(AtomicU64::new(0));
        *outgoing.body_mut() = Some(match bytes {
            0 => Bytes::new().into(),
            _ => reqwest::Body::wrap(Sent::new(body, &self.wire, handed.clone())),
        });
        match self.answer(outgoing, bytes, &handed).await {
            Ok(response) => self.received(request, response).await,
            Err(error) => Err(request.failed(error)),
        }
    }

    /// Waits for the head of an answer as long as something moves.
    async fn answer(
        &self,
        request: reqwest::Request,
        bytes: u64,
        handed: &AtomicU64,
    ) -> Result<reqwest::Response, Trouble> {
        let tick = self.wire.silence_max / 8;
        let slow = Duration::from_secs(bytes.min(UNSENT_BYTES_MAX) / SLOW_BYTES_PER_SECOND);
        let mut sending = pin!(self.client.execute(request));
        let (mut seen, mut quiet) = (0, Duration::ZERO);
        loop {
            if let Ok(answer) = tokio::time::timeout(tick, &mut sending).await {
                return answer.map_err(Trouble::of);
            }
            let now = handed.load(Ordering::Relaxed);
            quiet = if now == seen { quiet + tick } else { Duration::ZERO };
            seen = now;
            let patience = self.wire.silence_max + if now == bytes { slow } else { Duration::ZERO };
            if quiet >= patience {
                return Err(Trouble::silent(quiet));
            }
        }
    }

    /// The answer, with its bytes to come; with its words at once if it says no.
    async fn received(&self, request: Request, response: reqwest::Response) -> Result<HttpResponse, HttpError> {
        let (status, headers) = (response.status(), response.headers().clone());
        let region = headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let is_fine = status.as_u16() < 400;
        let (code, words, body) = match is_fine {
            true => {
                (String::new(), String::new(), HttpResponseBody::new(Received::new(response.into(), request.clone())))
            }
            false => {
                let text = HttpResponseBody::new(Received::new(response.into(), request.clone())).bytes().await?;
                let (code, words) = words_of(&text[..text.len().min(WORDS_BYTES_MAX)]);
                (code, words, HttpResponseBody::from(text))
            }
        };
        request.answered(status.as_u16(), code, words, region);
        let mut answer = HttpResponse::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

/// What a request asks for.
fn kind_of(method: &reqwest::Method, uri: &str) -> RequestKind {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    let is_list = query.split('&').any(|word| matches!(word, "list-type=2" | "comp=list"));
    match method.as_str() {
        "GET" if is_list => RequestKind::List,
        "HEAD" => RequestKind::Head,
        "PUT" => RequestKind::Put,
        "POST" => RequestKind::Post,
        "DELETE" => RequestKind::Delete,
        _ => RequestKind::Get,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadUrl(String);

/// Why a request got no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub struct Trouble {
    pub kind: FailureKind,
    words: String,
}

impl Trouble {
    pub fn silent(quiet: Duration) -> Trouble {
        Trouble { kind: FailureKind::Timeout, words: format!("nothing moved for {} s", quiet.as_secs_f32()) }
    }

    pub fn of(error: reqwest::Error) -> Trouble {
        // Without a connection nothing was sent, whether that took too long or not.
        let kind = match () {
            () if error.is_connect() => FailureKind::Connect,
            () if error.is_timeout() => FailureKind::Timeout,
            () => FailureKind::Cut,
        };
        Trouble { kind, words: one_line(&deepest(&error.without_url())) }
    }

    /// What the client above makes of it: it tries again what was not sent, what may be asked twice after a timeout, and
    /// whatever was cut. The last is right for all that a store is asked: a create that finds its own object says that
    /// there is one, and the caller looks whose it is.
    pub fn http_kind(&self) -> HttpErrorKind {
        match self.kind {
            FailureKind::Connect => HttpErrorKind::Connect,
            FailureKind::Timeout => HttpErrorKind::Timeout,
            _ => HttpErrorKind::Request,
        }
    }
}
