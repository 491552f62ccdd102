module nuncstans

go 1.19
