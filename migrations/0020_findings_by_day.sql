-- Findings come with every window, so they are partitioned and dropped by day as the windows' rows are. A partition's
-- key must hold the column that it is partitioned by.
ALTER TABLE findings RENAME TO findings_whole;
ALTER INDEX findings_pkey RENAME TO findings_whole_pkey;
DROP INDEX findings_window_start;

CREATE TABLE findings (LIKE findings_whole INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (window_start);
ALTER TABLE findings ADD PRIMARY KEY (height, ordinal, window_start);

CREATE FUNCTION ensure_day_partition(parent text, moment timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    day_start timestamptz := date_trunc('day', moment, 'UTC');
    day_end timestamptz := day_start + interval '24 hours';
    partition text := parent || '_' || to_char(day_start AT TIME ZONE 'UTC', 'YYYYMMDD');
BEGIN
    IF to_regclass(partition) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, parent);
        EXECUTE format(
            'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            parent, partition, day_start, day_end
        );
    END IF;
END
$$;

DO $$
BEGIN
    PERFORM ensure_day_partition('findings', day)
    FROM (SELECT DISTINCT date_trunc('day', window_start, 'UTC') AS day FROM findings_whole) AS days;
END
$$;
INSERT INTO findings SELECT * FROM findings_whole;
DROP TABLE findings_whole;
