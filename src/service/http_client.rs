//! A small HTTP client: one request, one answer, both bounded in time and size, over http or https. It
//! follows no redirect and keeps no cookie.
//!
//! Invariants: no answer takes longer than its timeout or more memory than its limit, whatever the other
//! side does; and no token leaves this machine unencrypted.

mod settings;

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::RootCertStore;

pub use self::settings::{ClientSettings, ClientSettingsError};
use self::settings::{Credentials, authorities_of, system_authorities, tls};

/// What an answer may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long until the whole answer is there.
    pub timeout: Duration,
    /// How large its body may be.
    pub body_bytes: usize,
}

/// A complete answer, of whatever status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its whole body.
    pub body: Bytes,
    /// How long it asks to be left alone: its `Retry-After`, where that is a number of seconds.
    pub retry_after: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is no `http://` or `https://` URL.
    #[error("{0:?} is no http:// or https:// address")]
    Address(String),
    /// There is a token for this address, and whoever is on the way could read it.
    #[error("{0} is not on this machine: a token is sent there only over https://")]
    TokenInClear(String),
    /// The server's certificate is not accepted, or it speaks no TLS that is.
    #[error("{address} is not trusted: {why}")]
    Untrusted {
        /// The address asked.
        address: String,
        /// What is wrong.
        why: rustls::Error,
    },
    /// The media type cannot stand in a header.
    #[error("{0:?} is no media type")]
    MediaType(String),
    /// It could not be reached, or broke the connection off.
    #[error("{address} does not answer")]
    Unreachable {
        /// The address asked.
        address: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("{address} did not answer within {} ms", timeout.as_millis())]
    Timeout {
        /// The address asked.
        address: String,
        /// The limit.
        timeout: Duration,
    },
    /// The body is larger than it may be.
    #[error("the answer of {address} has more than {most} bytes")]
    TooLarge {
        /// The address asked.
        address: String,
        /// The limit.
        most: usize,
    },
}

/// Sends requests and keeps connections for the next ones. Copies share them.
#[derive(Clone, Debug, Default)]
pub struct HttpClient {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// None: the system's, which are read when they are first needed.
    authorities: Option<RootCertStore>,
    credentials: Credentials,
    client: OnceLock<Client<HttpsConnector<HttpConnector>, Body>>,
    plain: OnceLock<Client<HttpConnector, Body>>,
}

impl HttpClient {
    /// A client without connections and without a token, which trusts the system's authorities.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client with these settings; reads the files that they name.
    ///
    /// # Errors
    /// [`ClientSettingsError`] says which file is wrong, and how.
    pub fn with(settings: &ClientSettings) -> Result<Self, ClientSettingsError> {
        let ClientSettings { ca, token_file } = settings;
        let shared = Shared {
            authorities: ca.as_deref().map(authorities_of).transpose()?,
            credentials: token_file.as_deref().map(Credentials::read).transpose()?.unwrap_or_default(),
            ..Shared::default()
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether requests may go to this address, without sending any: for the start of a program.
    ///
    /// # Errors
    /// [`HttpError::Address`] or [`HttpError::TokenInClear`].
    pub fn check(&self, address: &str) -> Result<(), HttpError> {
        self.authorized(address).map(drop)
    }

    /// Fetches an address.
    ///
    /// # Errors
    /// [`HttpError`] when there is no complete answer within the bounds.
    pub async fn get(&self, address: &str, bounds: Bounds) -> Result<Answer, HttpError> {
        self.send(Method::GET, address, HeaderMap::new(), Bytes::new(), bounds).await
    }

    /// Posts a body of this media type.
    ///
    /// # Errors
    /// [`HttpError`] when there is no complete answer within the bounds.
    pub async fn post(
        &self,
        address: &str,
        media_type: &str,
        body: impl Into<Bytes>,
        bounds: Bounds,
    ) -> Result<Answer, HttpError> {
        let media_type =
            HeaderValue::from_str(media_type).map_err(|_| HttpError::MediaType(media_type.to_owned()))?;
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, media_type)]);
        self.send(Method::POST, address, headers, body.into(), bounds).await
    }

    /// Posts a body on behalf of somebody else, with these headers of theirs.
    ///
    /// # Errors
    /// [`HttpError`] when there is no complete answer within the bounds.
    pub async fn forward(
        &self,
        address: &str,
        headers: HeaderMap,
        body: Bytes,
        bounds: Bounds,
    ) -> Result<Answer, HttpError> {
        self.send(Method::POST, address, headers, body, bounds).await
    }

    /// Sends any request. A header `Authorization` among these headers goes before the client's token.
    ///
    /// # Errors
    /// [`HttpError`] when there is no complete answer within the bounds.
    pub async fn send(
        &self,
        method: Method,
        address: &str,
        headers: HeaderMap,
        body: Bytes,
        bounds: Bounds,
    ) -> Result<Answer, HttpError> {
        let (uri, token) = self.authorized(address)?;
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        if let Some(token) = token {
            request.headers_mut().entry(header::AUTHORIZATION).or_insert_with(|| token.clone());
        }
        let timeout = bounds.timeout;
        match tokio::time::timeout(timeout, self.exchange(address, request, bounds.body_bytes)).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Timeout { address: address.to_owned(), timeout }),
        }
    }

    /// The address, and the token for it.
    fn authorized(&self, address: &str) -> Result<(Uri, Option<&HeaderValue>), HttpError> {
        let not_an_address = || HttpError::Address(address.to_owned());
        let uri: Uri = address.parse().map_err(|_| not_an_address())?;
        let (Some("http" | "https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(not_an_address());
        };
        let token = self.shared.credentials.for_address(&uri);
        if token.is_some() && uri.scheme_str() == Some("http") && !is_this_machine(host) {
            return Err(HttpError::TokenInClear(address.to_owned()));
        }
        Ok((uri, token))
    }

    async fn exchange(
        &self,
        address: &str,
        request: Request<Body>,
        most: usize,
    ) -> Result<Answer, HttpError> {
        let address = || address.to_owned();
        let response = if request.uri().scheme_str() == Some("https") {
            self.shared.encrypted().request(request).await
        } else {
            self.shared.plain().request(request).await
        };
        let response = response.map_err(|source| match tls_error(&source) {
            Some(why) => HttpError::Untrusted { address: address(), why },
            None => HttpError::Unreachable { address: address(), source: source.into() },
        })?;
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(seconds);
        match Limited::new(response.into_body(), most).collect().await {
            Ok(body) => Ok(Answer { status, body: body.to_bytes(), retry_after }),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(HttpError::TooLarge { address: address(), most })
            }
            Err(source) => Err(HttpError::Unreachable { address: address(), source }),
        }
    }
}

impl Shared {
    fn plain(&self) -> &Client<HttpConnector, Body> {
        self.plain.get_or_init(|| Client::builder(TokioExecutor::new()).build(HttpConnector::new()))
    }

    /// Made when it is first needed, because the system's authorities are a file of some hundred kilobytes.
    fn encrypted(&self) -> &Client<HttpsConnector<HttpConnector>, Body> {
        self.client.get_or_init(|| {
            let authorities = self.authorities.clone().unwrap_or_else(system_authorities);
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls(authorities))
                .https_only()
                .enable_http1()
                .build();
            Client::builder(TokioExecutor::new()).build(connector)
        })
    }
}

/// Whether what is sent to this address is encrypted or stays on this machine.
#[must_use]
pub fn is_confidential(address: &str) -> bool {
    address
        .parse::<Uri>()
        .is_ok_and(|uri| uri.scheme_str() == Some("https") || uri.host().is_some_and(is_this_machine))
}

/// Whether the name or address is this machine's own whatever a name server says.
fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host.eq_ignore_ascii_case("localhost"), |address| address.to_canonical().is_loopback())
}

/// The TLS error among the causes, when that is what went wrong.
fn tls_error(error: &(dyn std::error::Error + 'static)) -> Option<rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found.clone());
        }
        // An I/O error hides the error that it wraps from its `source`.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::{Bounds, HttpClient, HttpError};
    use axum::{Router, http::StatusCode, routing::get};
    use std::time::Duration;
    use tokio::net::TcpListener;

    const BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(10), body_bytes: 100 };

    async fn server() -> String {
        let routes = Router::new()
            .route("/small", get(|| async { "small" }).post(|body: String| async { body }))
            .route("/busy", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "30")]) }))
            .route("/large", get(|| async { "x".repeat(101) }))
            .route("/never", get(std::future::pending::<()>));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(axum::serve(listener, routes).into_future());
        format!("http://{address}")
    }

    #[tokio::test]
    async fn an_answer_comes_back_whole_whatever_its_status() {
        let (client, server) = (HttpClient::new(), server().await);
        let answer = client.get(&format!("{server}/small"), BOUNDS).await.expect("it answers");
        assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, b"small".as_ref()));
        let answer = client.post(&format!("{server}/small"), "text/plain", "echo", BOUNDS).await;
        assert_eq!(answer.expect("it answers").body.as_ref(), b"echo");
        let answer = client.get(&format!("{server}/gone"), BOUNDS).await.expect("it answers");
        assert_eq!((answer.status, answer.retry_after), (StatusCode::NOT_FOUND, None));
        let answer = client.get(&format!("{server}/busy"), BOUNDS).await.expect("it answers");
        assert_eq!(answer.retry_after, Some(Duration::from_secs(30)));
    }

    #[tokio::test]
    async fn size_and_time_are_bounded() {
        let (client, server) = (HttpClient::new(), server().await);
        let answer = client.get(&format!("{server}/large"), BOUNDS).await;
        assert!(matches!(answer, Err(HttpError::TooLarge { most: 100, .. })));
        let bounds = Bounds { timeout: Duration::from_millis(10), ..BOUNDS };
        let answer = client.get(&format!("{server}/never"), bounds).await;
        assert!(matches!(answer, Err(HttpError::Timeout { .. })));
    }

    #[tokio::test]
    async fn an_address_that_is_none_and_a_closed_port_are_told_apart() {
        let client = HttpClient::new();
        for address in ["", "/v1/heads", "localhost:1", "ftp://localhost/", "http://"] {
            assert!(matches!(client.get(address, BOUNDS).await, Err(HttpError::Address(_))), "{address}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let closed = format!("http://{}/", listener.local_addr().expect("it is bound"));
        drop(listener);
        assert!(matches!(client.get(&closed, BOUNDS).await, Err(HttpError::Unreachable { .. })));
    }
}
