//! A small HTTP client: one request, one answer, both bounded in time and size. Plain HTTP only: what it
//! fetches is verified by signatures, and what it posts stays on the machine or behind a proxy.
//!
//! Invariant: no answer takes longer than its timeout or more memory than its limit, whatever the other
//! side does.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

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
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is no `http://` URL.
    #[error("{0:?} is no http:// address")]
    Address(String),
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
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpConnector, Body>,
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClient {
    /// A client without connections.
    #[must_use]
    pub fn new() -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()) }
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

    async fn send(
        &self,
        method: Method,
        address: &str,
        headers: HeaderMap,
        body: Bytes,
        bounds: Bounds,
    ) -> Result<Answer, HttpError> {
        let not_an_address = || HttpError::Address(address.to_owned());
        let uri: Uri = address.parse().map_err(|_| not_an_address())?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(not_an_address());
        }
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let timeout = bounds.timeout;
        match tokio::time::timeout(timeout, self.exchange(address, request, bounds.body_bytes)).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Timeout { address: address.to_owned(), timeout }),
        }
    }

    async fn exchange(
        &self,
        address: &str,
        request: Request<Body>,
        most: usize,
    ) -> Result<Answer, HttpError> {
        let address = || address.to_owned();
        let response = self
            .client
            .request(request)
            .await
            .map_err(|source| HttpError::Unreachable { address: address(), source: source.into() })?;
        let status = response.status();
        match Limited::new(response.into_body(), most).collect().await {
            Ok(body) => Ok(Answer { status, body: body.to_bytes() }),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(HttpError::TooLarge { address: address(), most })
            }
            Err(source) => Err(HttpError::Unreachable { address: address(), source }),
        }
    }
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
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
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
        for address in ["", "/v1/heads", "https://localhost/", "ftp://localhost/", "http://"] {
            assert!(matches!(client.get(address, BOUNDS).await, Err(HttpError::Address(_))), "{address}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let closed = format!("http://{}/", listener.local_addr().expect("it is bound"));
        drop(listener);
        assert!(matches!(client.get(&closed, BOUNDS).await, Err(HttpError::Unreachable { .. })));
    }
}
