-- The merged interval of every statistic of every series in a window: the widest table, so it is partitioned
-- as merged_windows is, and has no foreign keys to check per row (both sides come from one transaction).
-- numeric(39, 9) holds every 128-bit count of billionths.
CREATE TABLE window_values (
    start_at  timestamptz    NOT NULL,
    series    bigint         NOT NULL,
    statistic text           NOT NULL CHECK (statistic IN ('last', 'min', 'max', 'mean', 'increase')),
    low       numeric(39, 9) NOT NULL,
    median    numeric(39, 9) NOT NULL,
    high      numeric(39, 9) NOT NULL,
    PRIMARY KEY (start_at, series, statistic)
) PARTITION BY RANGE (start_at);
