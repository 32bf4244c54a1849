-- What analysis saw, whether or not a plan followed. A finding has no name of its own: it is known by its
-- place in the log.
CREATE TABLE findings (
    height          bigint      NOT NULL,
    ordinal         integer     NOT NULL CHECK (ordinal >= 0),
    cycle           bigint      NOT NULL CHECK (cycle >= 0),
    policy          text,
    symptom         text        NOT NULL
        CHECK (symptom IN ('threshold', 'absence', 'disputed', 'unconfirmed', 'gap')),
    window_index    bigint      NOT NULL CHECK (window_index >= 0),
    window_start    timestamptz NOT NULL,
    since           timestamptz NOT NULL,
    observed_low    numeric(39, 9),
    observed_median numeric(39, 9),
    observed_high   numeric(39, 9),
    against         numeric(39, 9),
    PRIMARY KEY (height, ordinal),
    CHECK (num_nulls(observed_low, observed_median, observed_high) IN (0, 3))
);

CREATE INDEX findings_window_start ON findings (window_start);
