-- One row for each closed window. Partitioned by day of event time, so that old days can be dropped at once
-- and a dashboard's time filter reads only the days it asks for.
CREATE TABLE merged_windows (
    start_at         timestamptz NOT NULL,
    window_index     bigint      NOT NULL CHECK (window_index >= 0),
    cycle            bigint      NOT NULL CHECK (cycle >= 0),
    closed_at        timestamptz NOT NULL,
    finality         text        NOT NULL CHECK (finality IN ('confirmed', 'unconfirmed')),
    reporters        integer[]   NOT NULL,
    partial_reporters integer[]  NOT NULL,
    height           bigint      NOT NULL,
    PRIMARY KEY (start_at)
) PARTITION BY RANGE (start_at);
