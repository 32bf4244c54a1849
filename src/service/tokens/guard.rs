//! The guard before a server's routes: which scope each needs, and the answer to whoever lacks it.
//!
//! It knows paths and no handlers. Invariant: a path that the table does not name needs an operator's token, so
//! that a route that is added is closed until somebody opens it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use tokio::sync::watch;

use super::{
    Scope, Tokens,
    file::{ListFileError, read_tokens},
};
use crate::{
    monitor::{
        door::{self, answer},
        form::Protocol,
    },
    service::{clock::wall_clock, reload},
};

/// What a path asks of whoever comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Nothing: a supervisor holds no token, and the answers hold nothing worth one.
    Open,
    /// A token for telemetry, which is answered in its own form.
    Telemetry(Protocol),
    /// A token with one of these scopes.
    Needs(&'static [Scope]),
}

impl Access {
    fn to(path: &str) -> Self {
        match path {
            "/livez" | "/readyz" => Self::Open,
            "/" | "/v1/metrics" | "/v1/traces" | "/v1/logs" => Self::Telemetry(Protocol::Otlp),
            "/api/v1/write" => Self::Telemetry(Protocol::RemoteWrite),
            "/v1/samples" => Self::Telemetry(Protocol::Samples),
            "/v1/heads" | "/v1/plans" => Self::Needs(&[Scope::Agent, Scope::Read, Scope::Operator]),
            "/v1/receipts" => Self::Needs(&[Scope::Agent]),
            "/v1/status" | "/metrics" => Self::Needs(&[Scope::Read, Scope::Operator]),
            "/v1/evidence" => Self::Needs(&[Scope::Read, Scope::Operator]),
            path if path.starts_with("/v1/evidence/") || path.starts_with("/v1/bundles/") => {
                Self::Needs(&[Scope::Read, Scope::Operator])
            }
            path if path.starts_with("/v1/roots/") => {
                Self::Needs(&[Scope::Agent, Scope::Read, Scope::Operator])
            }
            _ => Self::Needs(&[Scope::Operator]),
        }
    }

    const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Open => &[],
            Self::Telemetry(_) => &[Scope::Ingest],
            Self::Needs(scopes) => scopes,
        }
    }
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It shows no token.
    Missing,
    /// Its token is not listed, or was revoked.
    Unknown,
    /// Its token's time is over.
    Expired,
    /// Its token is for something else.
    WrongScope,
}

impl Denial {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Unknown, Self::Expired, Self::WrongScope];

    /// Its name as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::WrongScope => "wrong_scope",
        }
    }
}

/// How many requests were not let in.
#[derive(Debug, Default)]
pub struct GuardCounters([AtomicU64; Denial::ALL.len()]);

impl GuardCounters {
    /// How many for this reason.
    #[must_use]
    pub fn of(&self, denial: Denial) -> u64 {
        self.0[denial as usize].load(Relaxed)
    }
}

/// Lets in who shows a token, by the newest list.
#[derive(Clone, Debug)]
pub struct Guard {
    tokens: watch::Receiver<Tokens>,
    counters: Arc<GuardCounters>,
}

impl Guard {
    /// Reads the file of tokens and follows its changes.
    ///
    /// # Errors
    /// [`ListFileError`] when it cannot be used.
    pub fn start(file: std::path::PathBuf, counters: Arc<GuardCounters>) -> Result<Self, ListFileError> {
        let tokens = reload::follow("list of tokens", vec![file.clone()], move || read_tokens(&file))?;
        Ok(Self { tokens, counters })
    }

    /// The routes behind the guard.
    pub fn protect(self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(self, admit))
    }
}

async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let access = Access::to(request.uri().path());
    let admitted = match (access, bearer(request.headers())) {
        (Access::Open, _) => Ok(()),
        (Access::Telemetry(_) | Access::Needs(_), None) => Err(Denial::Missing),
        (Access::Telemetry(_) | Access::Needs(_), Some(token)) => {
            guard.tokens.borrow().admit(token, access.scopes(), wall_clock())
        }
    };
    match admitted {
        Ok(()) => next.run(request).await,
        Err(denial) => {
            guard.counters.0[denial as usize].fetch_add(1, Relaxed);
            refuse(access, denial, request.headers())
        }
    }
}

/// The token of an `Authorization` header of the scheme `Bearer`, which is written in any case.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn refuse(access: Access, denial: Denial, headers: &HeaderMap) -> Response {
    let scopes: Vec<&str> = access.scopes().iter().map(|scope| scope.as_str()).collect();
    let needed = scopes.join(" or ");
    let (status, challenge, why) = match denial {
        Denial::Missing => (
            StatusCode::UNAUTHORIZED,
            String::new(),
            format!("a token with the scope {needed} is needed: `Authorization: Bearer TOKEN`"),
        ),
        Denial::Unknown | Denial::Expired => (
            StatusCode::UNAUTHORIZED,
            ", error=\"invalid_token\"".to_owned(),
            match denial {
                Denial::Expired => format!("the token has expired; one with the scope {needed} is needed"),
                Denial::Missing | Denial::Unknown | Denial::WrongScope => {
                    format!("the token is not known here; one with the scope {needed} is needed")
                }
            },
        ),
        Denial::WrongScope => (
            StatusCode::FORBIDDEN,
            format!(", error=\"insufficient_scope\", scope=\"{}\"", scopes.join(" ")),
            format!("the token is for something else; one with the scope {needed} is needed"),
        ),
    };
    let mut response = match access {
        Access::Telemetry(protocol) => {
            answer::refusal(protocol.form(door::content_type(headers)).ok(), status, &why)
        }
        Access::Open | Access::Needs(_) => (status, Json(serde_json::json!({"error": why}))).into_response(),
    };
    let challenge = HeaderValue::try_from(format!("Bearer realm=\"quorate\"{challenge}"));
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge.unwrap_or(HeaderValue::from_static("Bearer")));
    response
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use axum::{
        Router,
        body::Body,
        http::{Request, StatusCode, header},
        routing::any,
    };
    use http_body_util::BodyExt as _;
    use tokio::sync::watch;
    use tower::ServiceExt as _;

    use super::{Denial, Guard, GuardCounters};
    use crate::{
        service::{
            clock::wall_clock,
            tokens::{ListedToken, Scope, Token, Tokens},
        },
        types::{Millis, UnixMillis},
    };

    fn listed(name: &str, token: &Token, scopes: &[Scope], expires_ms: Option<UnixMillis>) -> ListedToken {
        ListedToken {
            name: name.parse().expect("a valid name"),
            scopes: scopes.iter().copied().collect(),
            sha256: token.digest(),
            created_ms: UnixMillis::ZERO,
            expires_ms,
        }
    }

    struct Guarded {
        router: Router,
        tokens: watch::Sender<Tokens>,
        counters: Arc<GuardCounters>,
    }

    impl Guarded {
        fn new() -> Self {
            let (tokens, seen) = watch::channel(Tokens::default());
            let counters = Arc::new(GuardCounters::default());
            let guard = Guard { tokens: seen, counters: Arc::clone(&counters) };
            let routes = Router::new().route("/{*any}", any(async || "in")).route("/", any(async || "in"));
            Self { router: guard.protect(routes), tokens, counters }
        }

        async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String, String) {
            let mut request = Request::post(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Body::empty()).expect("a valid request");
            let response = self.router.clone().oneshot(request).await.expect("a router does not fail");
            let status = response.status();
            let challenge = response.headers().get(header::WWW_AUTHENTICATE);
            let challenge = challenge.map_or("", |value| value.to_str().expect("it is text")).to_owned();
            let body = response.into_body().collect().await.expect("it is in memory").to_bytes();
            (status, challenge, String::from_utf8_lossy(&body).into_owned())
        }
    }

    #[tokio::test]
    async fn each_path_is_open_to_its_scopes_and_to_no_other() {
        let guarded = Guarded::new();
        let scopes = [Scope::Ingest, Scope::Agent, Scope::Operator, Scope::Read];
        let secrets = scopes.map(|scope| (scope, Token::generate().expect("random")));
        let all = secrets.iter().map(|(scope, token)| listed(scope.as_str(), token, &[*scope], None));
        guarded.tokens.send_replace(Tokens(all.collect()));
        let readers = [Scope::Agent, Scope::Operator, Scope::Read];
        let rows: [(&str, &[Scope]); 22] = [
            ("/livez", &scopes),
            ("/readyz", &scopes),
            ("/", &[Scope::Ingest]),
            ("/v1/metrics", &[Scope::Ingest]),
            ("/v1/traces", &[Scope::Ingest]),
            ("/api/v1/write", &[Scope::Ingest]),
            ("/v1/samples", &[Scope::Ingest]),
            ("/v1/logs", &[Scope::Ingest]),
            ("/v1/heads", &readers),
            ("/v1/heads?after=1&wait=30", &readers),
            ("/v1/plans", &readers),
            ("/v1/roots/1", &readers),
            ("/v1/receipts", &[Scope::Agent]),
            ("/v1/status", &[Scope::Operator, Scope::Read]),
            ("/metrics", &[Scope::Operator, Scope::Read]),
            ("/v1/evidence", &[Scope::Operator, Scope::Read]),
            ("/v1/evidence/00", &[Scope::Operator, Scope::Read]),
            ("/v1/bundles/00", &[Scope::Operator, Scope::Read]),
            ("/v1/operator-requests", &[Scope::Operator]),
            ("/v1/anything", &[Scope::Operator]),
            ("/v1/metrics/", &[Scope::Operator]),
            ("/v1/%6detrics", &[Scope::Operator]),
        ];
        for (path, allowed) in rows {
            for (scope, token) in &secrets {
                let header = format!("Bearer {}", token.reveal());
                let (status, challenge, body) = guarded.ask(path, &[("authorization", &header)]).await;
                if allowed.contains(scope) {
                    assert_eq!((status, body.as_str()), (StatusCode::OK, "in"), "{path} by {scope}");
                } else {
                    assert_eq!(status, StatusCode::FORBIDDEN, "{path} by {scope}");
                    let named: BTreeSet<&str> = allowed.iter().map(|scope| scope.as_str()).collect();
                    assert!(named.iter().all(|name| body.contains(name)), "{path} by {scope}: {body}");
                    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
                }
            }
            let (status, challenge, _) = guarded.ask(path, &[]).await;
            let open = path == "/livez" || path == "/readyz";
            assert_eq!(status, if open { StatusCode::OK } else { StatusCode::UNAUTHORIZED }, "{path}");
            assert_eq!(challenge, if open { "" } else { "Bearer realm=\"quorate\"" }, "{path}");
        }
    }

    #[tokio::test]
    async fn what_is_no_valid_token_is_told_and_counted_by_its_reason() {
        let guarded = Guarded::new();
        let (good, old) = (Token::generate().expect("random"), Token::generate().expect("random"));
        let now = wall_clock();
        guarded.tokens.send_replace(Tokens(vec![
            listed("good", &good, &[Scope::Read], Some(now.plus(Millis::from_secs(3_600)))),
            listed("old", &old, &[Scope::Read], Some(now)),
        ]));
        let good = good.reveal().to_owned();
        let (old, cut) = (format!("Bearer {}", old.reveal()), format!("Bearer {}", &good[..good.len() - 1]));
        let rows = [
            (format!("Bearer {good}"), None, ""),
            (format!("bearer  {good} "), None, ""),
            (format!("Basic {good}"), Some(Denial::Missing), "is needed"),
            (good.clone(), Some(Denial::Missing), "is needed"),
            (cut, Some(Denial::Unknown), "is not known here"),
            (format!("Bearer {good} {good}"), Some(Denial::Unknown), "is not known here"),
            ("Bearer ".to_owned(), Some(Denial::Unknown), "is not known here"),
            (old, Some(Denial::Expired), "has expired"),
        ];
        for (header, denial, words) in rows {
            let before = denial.map(|denial| guarded.counters.of(denial));
            let (status, _, body) = guarded.ask("/v1/status", &[("authorization", &header)]).await;
            let expected = if denial.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
            assert_eq!(status, expected, "{header:?}: {body}");
            assert!(body.contains(words), "{header:?}: {body}");
            assert_eq!(before.map(|count| count + 1), denial.map(|denial| guarded.counters.of(denial)));
        }
        guarded.tokens.send_replace(Tokens::default());
        let (status, ..) = guarded.ask("/v1/status", &[("authorization", &format!("Bearer {good}"))]).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "a revoked token lets nobody in");
    }

    #[tokio::test]
    async fn an_exporter_is_told_in_its_own_form() {
        let guarded = Guarded::new();
        let (_, _, body) = guarded.ask("/v1/metrics", &[("content-type", "application/json")]).await;
        let body: serde_json::Value = serde_json::from_str(&body).expect("it is JSON");
        assert_eq!(body["code"], 16, "{body}");
        assert!(body["message"].as_str().is_some_and(|text| text.contains("the scope ingest")), "{body}");
        let (_, _, body) = guarded.ask("/v1/metrics", &[("content-type", "application/x-protobuf")]).await;
        assert!(body.starts_with("\u{8}\u{10}\u{12}"), "{body:?}");
    }
}
