-- What operators have ordered: stops, resumes and agents' keys, with the exact, signed bytes. Those that were refused
-- stand among the refusals, under a kind of their own.
CREATE TABLE operator_requests (
    height      bigint      NOT NULL,
    ordinal     integer     NOT NULL CHECK (ordinal >= 0),
    digest      bytea       NOT NULL CHECK (octet_length(digest) = 32),
    operator    text        NOT NULL,
    kind        text        NOT NULL CHECK (kind IN ('stop', 'resume', 'bind_agent', 'unbind_agent')),
    counter     bigint      NOT NULL,
    agreed_time timestamptz NOT NULL,
    body        bytea       NOT NULL,
    envelope    bytea       NOT NULL,
    PRIMARY KEY (height, ordinal)
);

ALTER TABLE refusals
    DROP CONSTRAINT refusals_command_check,
    ADD CONSTRAINT refusals_command_check
        CHECK (command IN ('plan', 'receipt', 'report', 'operator_request', 'malformed'));
