-- A change of several steps can fail in the middle: what was done stays done, and the receipt says so.
ALTER TABLE receipts DROP CONSTRAINT receipts_outcome_check;
ALTER TABLE receipts ADD CONSTRAINT receipts_outcome_check
    CHECK (outcome IN ('applied', 'noop', 'refused', 'reverted', 'partial'));

ALTER TABLE plans DROP CONSTRAINT plans_state_check;
ALTER TABLE plans ADD CONSTRAINT plans_state_check
    CHECK (state IN ('logged', 'applied', 'noop', 'refused', 'reverted', 'partial'));
