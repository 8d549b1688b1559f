//! The block pool: owns a schedule, certifies runs on worker threads, applies blocks in order.
