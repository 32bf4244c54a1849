-- What agents say they did. Times and counters here are an agent's claims and are cut to what a column holds;
-- the envelope has the exact, signed bytes.
CREATE TABLE receipts (
    height            bigint      NOT NULL,
    ordinal           integer     NOT NULL CHECK (ordinal >= 0),
    target            text        NOT NULL,
    seq               bigint      NOT NULL CHECK (seq >= 0),
    plan              bytea       NOT NULL CHECK (octet_length(plan) = 32),
    outcome           text        NOT NULL CHECK (outcome IN ('applied', 'noop', 'refused', 'reverted')),
    refusal           text,
    state_before      jsonb       NOT NULL,
    state_after       jsonb       NOT NULL,
    agent_time        timestamptz NOT NULL,
    counter           bigint      NOT NULL,
    refused_documents bigint      NOT NULL,
    envelope          bytea       NOT NULL,
    PRIMARY KEY (height, ordinal),
    CHECK ((outcome = 'refused') = (refusal IS NOT NULL))
);

CREATE INDEX receipts_plan ON receipts (plan);
