-- What each policy's indicator read in a window, by the policy's place in the genesis: what analysis saw.
CREATE TABLE readings (
    start_at            timestamptz NOT NULL,
    policy              integer     NOT NULL CHECK (policy >= 0),
    kind                text        NOT NULL,
    low                 numeric(39, 9),
    median              numeric(39, 9),
    high                numeric(39, 9),
    since               timestamptz,
    learned_interval_ms bigint,
    PRIMARY KEY (start_at, policy),
    CHECK (
        CASE kind
            WHEN 'fresh' THEN num_nulls(low, median, high) = 0 AND num_nonnulls(since, learned_interval_ms) = 0
            WHEN 'held' THEN num_nulls(low, median, high, since) = 0 AND learned_interval_ms IS NULL
            WHEN 'no_samples' THEN num_nonnulls(low, median, high) = 0 AND learned_interval_ms IS NOT NULL
            WHEN 'unknown' THEN num_nonnulls(low, median, high, since, learned_interval_ms) = 0
            ELSE false
        END
    )
) PARTITION BY RANGE (start_at);
