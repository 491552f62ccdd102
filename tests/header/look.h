/* ---- Looking in ---- */
