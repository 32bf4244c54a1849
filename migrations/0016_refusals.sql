-- Commands that were ordered and changed nothing, with the reason: otherwise a plan that lost the
-- compare-and-set or a replayed receipt would leave no trace.
CREATE TABLE refusals (
    height  bigint  NOT NULL,
    ordinal integer NOT NULL CHECK (ordinal >= 0),
    command text    NOT NULL CHECK (command IN ('plan', 'receipt', 'report', 'malformed')),
    reason  text    NOT NULL,
    detail  text,
    plan    bytea,
    target  text,
    replica integer,
    PRIMARY KEY (height, ordinal)
);
