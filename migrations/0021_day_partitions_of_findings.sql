-- A window's day now has a partition of findings too. A finding may be about a window of another day than those
-- that its block closes, so its own day is made sure of by itself.
CREATE OR REPLACE FUNCTION ensure_day_partitions(moment timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT ensure_day_partition(parent, moment)
    FROM unnest(ARRAY['merged_windows', 'window_values', 'readings', 'findings']) AS parent
$$;
