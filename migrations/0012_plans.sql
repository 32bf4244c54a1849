-- Logged plans: the only ones that heads and agents know. `body` holds the exact bytes that were signed and
-- `digest` their SHA-256; the other columns repeat parts of the body for queries. `state` follows the newest
-- receipt.
CREATE TABLE plans (
    digest     bytea       PRIMARY KEY CHECK (octet_length(digest) = 32),
    target     text        NOT NULL,
    seq        bigint      NOT NULL CHECK (seq >= 0),
    epoch      bigint      NOT NULL CHECK (epoch >= 0),
    prev       bytea       NOT NULL CHECK (octet_length(prev) = 32),
    policy     bytea       NOT NULL CHECK (octet_length(policy) = 32),
    evidence   bytea       NOT NULL CHECK (octet_length(evidence) = 32),
    desired    jsonb       NOT NULL,
    rollback   jsonb       NOT NULL,
    issued_at  timestamptz NOT NULL,
    not_before timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    body       bytea       NOT NULL,
    state      text        NOT NULL DEFAULT 'logged'
        CHECK (state IN ('logged', 'applied', 'noop', 'refused', 'reverted')),
    logged_at  timestamptz NOT NULL,
    height     bigint      NOT NULL,
    UNIQUE (target, seq)
);
