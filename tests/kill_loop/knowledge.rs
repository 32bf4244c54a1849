//! What replicas keep in Postgres, row by row as text, up to a height.
//!
//! Invariant: only columns that follow from the log are compared; which quorum signed a head, and what a later receipt
//! made of a plan, are each replica's own.

use std::{collections::BTreeMap, path::Path};

use quorate::service::config::{ReplicaConfig, ReplicaFlags};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

/// Tables, and what of them is equal at all replicas.
const COLUMNS: [(&str, &str); 8] = [
    ("block_headers", "height, view, digest, parent, proposer, commands"),
    ("merged_windows", "height, window_index, cycle, closed_at, finality, reporters, partial_reporters"),
    ("plans", "height, digest, target, seq, body"),
    ("heads", "height, shard, number, digest, body"),
    ("operator_requests", "height, ordinal, digest, operator, kind, counter, body"),
    ("receipts", "height, ordinal, plan, outcome, state_after, envelope"),
    ("evidence", "height, ordinal, digest, offender, kind, about"),
    ("refusals", "height, ordinal, command, reason, plan, target, replica"),
];

/// What one database holds: each table's rows in order, and how far it is.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    pub(crate) height: u64,
    tables: BTreeMap<&'static str, Vec<(u64, String)>>,
}

impl Knowledge {
    /// Reads the database of a replica that has ended.
    pub(crate) fn read(replica_file: &Path) -> Self {
        let flags = ReplicaFlags { config: Some(replica_file.to_owned()), ..ReplicaFlags::default() };
        let config = ReplicaConfig::resolve(flags).expect("the replica ran with this file");
        let url = config.database.expect("each replica has a database");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(async {
            let mut database = PgConnection::connect(url.reveal()).await.expect("the server runs");
            let mut knowledge = Self::default();
            let height = sqlx::query("SELECT height FROM applied_height").fetch_one(&mut database).await;
            knowledge.height = unsigned(height.expect("there is one").get(0));
            for (table, columns) in COLUMNS {
                let query = format!(
                    "SELECT height, ROW({columns})::text FROM {table} WHERE height IS NOT NULL ORDER BY 1, 2"
                );
                let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut database).await;
                let rows = rows.unwrap_or_else(|error| panic!("{table}: {error}"));
                let row = |row: &sqlx::postgres::PgRow| (unsigned(row.get(0)), row.get(1));
                knowledge.tables.insert(table, rows.iter().map(row).collect());
            }
            knowledge
        })
    }

    /// The rows of a table between two heights.
    pub(crate) fn rows(&self, table: &str, above: u64, to: u64) -> Vec<&(u64, String)> {
        self.tables[table].iter().filter(|(height, _)| (above + 1..=to).contains(height)).collect()
    }

    /// Asserts that two databases hold the same up to a height; how many rows that are.
    pub(crate) fn agree(&self, other: &Self, to: u64) -> usize {
        let mut rows = 0;
        for (table, _) in COLUMNS {
            let (ours, theirs) = (self.rows(table, 0, to), other.rows(table, 0, to));
            let differs = ours.iter().zip(&theirs).find(|(one, two)| one != two);
            assert!(
                differs.is_none() && ours.len() == theirs.len(),
                "{table}: {} and {} rows, {differs:?}",
                ours.len(),
                theirs.len()
            );
            rows += ours.len();
        }
        rows
    }
}

fn unsigned(height: i64) -> u64 {
    u64::try_from(height).expect("heights are not negative")
}
