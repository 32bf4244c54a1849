-- A series' names are long and repeat in every window, so values name it by a number. `key` holds the exact
-- canonical bytes and `digest` their SHA-256; the other columns are for people (U+FFFD stands for U+0000,
-- which text cannot hold). No index covers text that telemetry chose: a long name would exceed an index row.
CREATE TABLE series (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest     bytea  NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    key        bytea  NOT NULL,
    source     text   NOT NULL,
    name       text   NOT NULL,
    attributes jsonb  NOT NULL,
    resource   jsonb  NOT NULL
);
