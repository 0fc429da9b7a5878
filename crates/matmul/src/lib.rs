//! CPU matrix products whose elements are summed in one order, for 1 row or 500.
