//! Monitor: samples become series, windows and signed reports.
