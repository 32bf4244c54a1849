//! One request and its answer, bounded: the target's length, the body's size, its pace, and the whole time.
//!
//! It knows no route. Invariant: an exchange ends within its bound even if the body never does and the route
//! never answers.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, Request, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use http_body_util::Limited;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, sleep, sleep_until};
use tower::Service as _;

use super::{
    Bounds, Cut, HttpCounters,
    bounds::{MAX_BODY_BYTES, MAX_TARGET_BYTES},
    watch::Watch,
};

/// Answers the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) router: Router,
    pub(super) watch: Arc<Watch>,
    pub(super) bounds: Arc<Bounds>,
    pub(super) counters: Arc<HttpCounters>,
}

impl hyper::service::Service<Request<Incoming>> for Exchange {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.watch.exchange_begins();
        self.counters.requested();
        let exchange = self.clone();
        Box::pin(async move { Ok(exchange.answer(request).await) })
    }
}

impl Exchange {
    async fn answer(mut self, request: Request<Incoming>) -> Response {
        let pace = Arc::new(Pace::new(request.body().is_end_stream()));
        let mut response = match self.refused(&request) {
            Some(cut) => self.refuse(cut),
            None => {
                let timeout = self.timeout(request.uri());
                let request = request.map(|body| {
                    let body = Limited::new(body, MAX_BODY_BYTES);
                    Body::new(Paced { body, pace: Arc::clone(&pace) })
                });
                tokio::select! {
                    biased;
                    Ok(response) = self.router.call(request) => response,
                    cut = pace.overdue(&self.bounds) => self.refuse(cut),
                    () = sleep(timeout) => self.refuse(Cut::RequestTimeout),
                }
            }
        };
        let early = !pace.state().ended;
        if early {
            // What is left of the body must not be taken for the next request.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.watch.exchange_ends(early);
        response
    }

    fn refused(&self, request: &Request<Incoming>) -> Option<Cut> {
        let target = request.uri();
        let length = target.path().len() + target.query().map_or(0, str::len);
        if length > MAX_TARGET_BYTES {
            Some(Cut::TargetTooLong)
        } else if request.body().size_hint().lower() > MAX_BODY_BYTES as u64 {
            Some(Cut::BodyTooLarge)
        } else {
            None
        }
    }

    fn timeout(&self, target: &Uri) -> Duration {
        let waits =
            target.query().is_some_and(|query| query.split('&').any(|part| part.starts_with("wait=")));
        if waits { self.bounds.long_poll } else { self.bounds.request }
    }

    fn refuse(&self, cut: Cut) -> Response {
        self.counters.cut(cut);
        let (status, why) = match cut {
            Cut::TargetTooLong => (StatusCode::URI_TOO_LONG, "the request's target is too long"),
            Cut::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            Cut::BodyStalled | Cut::BodyTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")
            }
            Cut::RequestTimeout
            | Cut::Full
            | Cut::AddressFull
            | Cut::HandshakeTimeout
            | Cut::HandshakeFailed
            | Cut::HeaderTimeout
            | Cut::IdleTimeout
            | Cut::AnswerNotTaken
            | Cut::HeadTooLarge
            | Cut::Malformed
            | Cut::Stopped => {
                (StatusCode::SERVICE_UNAVAILABLE, "there is no answer in time; try again later")
            }
        };
        let mut response = (status, axum::Json(serde_json::json!({"error": why}))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
        }
        response
    }
}

/// How a body comes in.
#[derive(Debug)]
struct Pace {
    state: Mutex<PaceState>,
}

#[derive(Debug)]
struct PaceState {
    /// When it was first asked for.
    begun: Option<Instant>,
    /// Since when the server waits for more of it.
    waiting: Option<Instant>,
    ended: bool,
}

impl Pace {
    fn new(ended: bool) -> Self {
        Self { state: Mutex::new(PaceState { begun: None, waiting: None, ended }) }
    }

    fn state(&self) -> MutexGuard<'_, PaceState> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when the body has outstayed a bound. A body that a route does not ask for stands still by the
    /// route's choice, not the client's.
    async fn overdue(&self, bounds: &Bounds) -> Cut {
        loop {
            let now = Instant::now();
            // Waiting can begin at any moment, so a deadline is never further away than this look.
            let mut next = now + bounds.body_stall;
            {
                let state = self.state();
                let stalled = state.waiting.map(|since| (since + bounds.body_stall, Cut::BodyStalled));
                let whole = state.begun.map(|since| (since + bounds.body, Cut::BodyTimeout));
                let first = stalled.into_iter().chain(whole).min_by_key(|(at, _)| *at);
                if let Some((at, cut)) = first.filter(|_| !state.ended) {
                    if at <= now {
                        return cut;
                    }
                    next = next.min(at);
                }
            }
            sleep_until(next).await;
        }
    }
}

/// A body that notes its pace.
struct Paced {
    body: Limited<Incoming>,
    pace: Arc<Pace>,
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let now = Instant::now();
        {
            let mut state = self.pace.state();
            state.begun.get_or_insert(now);
            state.waiting.get_or_insert(now);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let mut state = self.pace.state();
        state.waiting = None;
        state.ended = frame.is_none() || self.body.is_end_stream();
        drop(state);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
