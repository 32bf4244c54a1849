-- Dashboards draw floating-point values over time. These views keep the partitioned columns bare, so that a
-- filter on `time` still skips the days it does not ask for.
CREATE VIEW dashboard_values AS
    SELECT v.start_at AS time, s.source, s.name, s.attributes, s.resource, v.statistic,
           v.low::double precision AS low, v.median::double precision AS median, v.high::double precision AS high
    FROM window_values v JOIN series s ON s.id = v.series;

CREATE VIEW dashboard_readings AS
    SELECT start_at AS time, policy, kind,
           low::double precision AS low, median::double precision AS median, high::double precision AS high
    FROM readings;
