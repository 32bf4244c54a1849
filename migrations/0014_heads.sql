-- Derived heads. A head comes twice, in either order: from the fold, which gives its height, and from the
-- replicas, whose signatures give its envelope.
CREATE TABLE heads (
    epoch       bigint      NOT NULL CHECK (epoch >= 0),
    shard       integer     NOT NULL CHECK (shard >= 0),
    number      bigint      NOT NULL CHECK (number >= 0),
    digest      bytea       NOT NULL CHECK (octet_length(digest) = 32),
    agreed_time timestamptz NOT NULL,
    body        bytea       NOT NULL,
    height      bigint,
    envelope    bytea,
    PRIMARY KEY (shard, epoch, number),
    CHECK (num_nonnulls(height, envelope) > 0)
);

CREATE INDEX heads_certified ON heads (shard, epoch, number) WHERE envelope IS NOT NULL;
