BEGIN TRANSACTION;
CREATE TABLE pared_comparisons (
	run TEXT NOT NULL, 
	place INTEGER NOT NULL, 
	first TEXT, 
	second TEXT, 
	difference FLOAT, 
	low FLOAT, 
	high FLOAT, 
	p_value FLOAT, 
	margin FLOAT, 
	verdict TEXT, 
	pairs INTEGER, 
	clusters INTEGER, 
	scale TEXT, 
	PRIMARY KEY (run, place)
);
INSERT INTO "pared_comparisons" VALUES('0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a',0,'cut','full',-0.04,-0.06,-0.02,0.001,0.05,'better',10,10,'log');
CREATE TABLE pared_cuts (
	run TEXT NOT NULL, 
	place INTEGER NOT NULL, 
	label TEXT, 
	removed FLOAT, 
	parameters FLOAT, 
	chosen BOOLEAN, 
	diverged INTEGER, 
	comparison TEXT, 
	PRIMARY KEY (run, place)
);
INSERT INTO "pared_cuts" VALUES('0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a',0,'ratio 0.5',0.5,700.0,1,0,'null');
CREATE TABLE pared_fits (
	run TEXT NOT NULL, 
	place INTEGER NOT NULL, 
	arm TEXT, 
	block BIGINT, 
	seed BIGINT, 
	ratio FLOAT, 
	metrics TEXT, 
	"plan" BLOB, 
	curves BLOB, 
	PRIMARY KEY (run, place)
);
INSERT INTO "pared_fits" VALUES('0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a',0,'full',0,0,NULL,'{"test.nrmse": 0.25}',NULL,X'789CAB562A294ACCCC53B2528836D433D05130D0338DD551502A4BCCC94C492CC9CC87CA188264CC626B0141DA0D18');
CREATE TABLE pared_runs (
	id TEXT NOT NULL, 
	kind TEXT, 
	status TEXT, 
	data TEXT, 
	begun TEXT, 
	task TEXT, 
	seed BIGINT, 
	seconds FLOAT, 
	host TEXT, 
	folder TEXT, 
	pared TEXT, 
	torch TEXT, 
	python TEXT, 
	git TEXT, 
	settings TEXT, 
	finding TEXT, 
	remarks TEXT, 
	error TEXT, 
	"before" FLOAT, 
	"after" FLOAT, 
	difference FLOAT, 
	low FLOAT, 
	high FLOAT, 
	scale TEXT, 
	verdict TEXT, 
	parameters_before BIGINT, 
	parameters_after BIGINT, 
	reason TEXT, 
	traceback TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "pared_runs" VALUES('0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a','run','finished','santa-fe','2026-11-01T10:00:00+00:00','forecasting',0,61.5,'lab','/data/runs/santa-fe-seed0','0.1.0','2.13.0','3.11.7',NULL,'{"lr": 0.01, "recurrent": [16, 4]}','As good with half.','["short"]','nrmse',0.25,0.24,-0.04,-0.06,-0.02,'log','better',1503,700,NULL,NULL);
INSERT INTO "pared_runs" VALUES('0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b','run','failed','my.csv','2026-11-02T10:00:00+00:00',NULL,1,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}',NULL,'[]',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'DivergedError: all','Traceback ...');
CREATE TABLE pared_schema (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "pared_schema" VALUES(1);
CREATE TABLE pared_trials (
	run TEXT NOT NULL, 
	place INTEGER NOT NULL, 
	stage TEXT, 
	number BIGINT, 
	seed BIGINT, 
	point TEXT, 
	result TEXT, 
	curves BLOB, 
	seconds FLOAT, 
	reason TEXT, 
	traceback TEXT, 
	PRIMARY KEY (run, place)
);
INSERT INTO "pared_trials" VALUES('0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b',0,'search',0,0,'{"lr": 0.1}',NULL,NULL,1.5,'ValueError: no','Traceback ...');
COMMIT;
