-- What was committed, in order, so that a block that comes a second time can be told from another block of
-- the same height, and people can see who proposed what.
CREATE TABLE block_headers (
    height   bigint  PRIMARY KEY CHECK (height > 0),
    view     bigint  NOT NULL CHECK (view >= 0),
    digest   bytea   NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    parent   bytea   NOT NULL CHECK (octet_length(parent) = 32),
    proposer integer NOT NULL CHECK (proposer >= 0),
    commands bigint  NOT NULL CHECK (commands >= 0)
);
