-- Quantiles of distributions are statistics too.
ALTER TABLE window_values DROP CONSTRAINT window_values_statistic_check;
ALTER TABLE window_values ADD CONSTRAINT window_values_statistic_check
    CHECK (statistic IN ('last', 'min', 'max', 'mean', 'increase', 'p50', 'p90', 'p99'));
