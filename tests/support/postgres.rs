//! One private Postgres for a test binary, a fresh database for each test. The server ends with the binary.

use quorate::service::postgres::PrivatePostgres;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::OnceCell;

static SERVER: OnceCell<PrivatePostgres> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The URL of a database that nobody has used.
pub(crate) async fn fresh_database() -> String {
    let server = SERVER
        .get_or_init(async || PrivatePostgres::temporary().await.expect("a private Postgres starts"))
        .await;
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    server.ensure_database(&name).await.expect("the server creates a database");
    server.url(&name)
}
