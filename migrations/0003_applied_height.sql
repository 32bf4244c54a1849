-- How far the log is folded in. Every block's transaction locks and moves this one row, which is what makes
-- a block's changes appear exactly once. Height 0 with a digest of zeros means that nothing was applied.
CREATE TABLE applied_height (
    singleton   boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    height      bigint      NOT NULL CHECK (height >= 0),
    digest      bytea       NOT NULL CHECK (octet_length(digest) = 32),
    agreed_time timestamptz NOT NULL
);

INSERT INTO applied_height (height, digest, agreed_time) VALUES (0, decode(repeat('00', 32), 'hex'), from_unix_ms(0));
