-- A journal that was lost or is an older copy must be noticed before anything is signed. The database remembers in
-- which view this replica had durably signed: a journal that holds less is not the one that signed. Zero means
-- that nothing is known, as for rows of before.
ALTER TABLE applied_height ADD COLUMN signed_view bigint NOT NULL DEFAULT 0 CHECK (signed_view >= 0);
