-- The program counts whole milliseconds since 1970; people and dashboards want timestamps. These two
-- functions are the only place where one becomes the other, exactly, whatever the session's time zone.
CREATE FUNCTION from_unix_ms(milliseconds bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN timestamptz '1970-01-01 00:00:00+00' + milliseconds * interval '1 millisecond';

CREATE FUNCTION to_unix_ms(moment timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (extract(epoch FROM moment) * 1000)::bigint;
