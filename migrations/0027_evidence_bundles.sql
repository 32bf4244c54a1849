-- What the plans of a cycle were derived from, by the digest that they name as their evidence: from these bytes anyone
-- computes the same plans again.
CREATE TABLE evidence_bundles (
    digest bytea  PRIMARY KEY CHECK (octet_length(digest) = 32),
    height bigint NOT NULL,
    bundle bytea  NOT NULL
);
