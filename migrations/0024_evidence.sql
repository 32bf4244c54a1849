-- What is proven against replicas: documents that hold the exact statements which their keys signed and verify offline.
CREATE TABLE evidence (
    height      bigint      NOT NULL,
    ordinal     integer     NOT NULL CHECK (ordinal >= 0),
    digest      bytea       NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    offender    integer     NOT NULL CHECK (offender >= 0),
    kind        text        NOT NULL CHECK (kind IN ('double_vote', 'double_proposal', 'double_timeout',
                                                     'double_report', 'double_endorsement',
                                                     'invalid_certificate', 'double_checkpoint')),
    about       text        NOT NULL,
    agreed_time timestamptz NOT NULL,
    document    bytea       NOT NULL,
    PRIMARY KEY (height, ordinal)
);

ALTER TABLE refusals
    DROP CONSTRAINT refusals_command_check,
    ADD CONSTRAINT refusals_command_check
        CHECK (command IN ('plan', 'receipt', 'report', 'operator_request', 'evidence', 'malformed'));
