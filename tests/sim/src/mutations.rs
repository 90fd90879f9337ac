//! Deliberate faults in the product, switched on by name, which the invariants must find.
