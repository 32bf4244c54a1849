-- The store calls this before it writes a window, in the block's own transaction: a day's partitions appear
-- with its first window or not at all. There is no default partition: rows in it would have to be scanned
-- and moved before their day could be attached. A new table that is attached locks out no reader of the
-- parent, which CREATE TABLE ... PARTITION OF would.
CREATE FUNCTION ensure_day_partitions(moment timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    day_start timestamptz := date_trunc('day', moment, 'UTC');
    day_end timestamptz := day_start + interval '24 hours';
    parent text;
    partition text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['merged_windows', 'window_values', 'readings'] LOOP
        partition := parent || '_' || to_char(day_start AT TIME ZONE 'UTC', 'YYYYMMDD');
        CONTINUE WHEN to_regclass(partition) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, parent);
        EXECUTE format(
            'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            parent, partition, day_start, day_end
        );
    END LOOP;
END
$$;
