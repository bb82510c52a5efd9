"""Photos with labels on disk: five layouts, recognised, checked, split and opened one by one."""
